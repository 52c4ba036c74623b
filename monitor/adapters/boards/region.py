"""The board of a second region: whether the other one answers, how far behind the copy is, whether it can go on."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import BAD, GOOD, ONE, PLAIN, ZERO, Board, Row, above, ask, graph, of_kind, stat

REGION: Final = Board(
    name="region",
    title="A second region",
    about="The copy of another region's journal: whether that region answers, what is not here yet, what ended it.",
    jobs=("mirror",),
    rows=(
        Row("State", (
            stat("The other region", "Red: its brokers do not answer. A person decides whether this one takes over.",
                 "short", "min(exchange_mirror_source_connected{$})", ONE,
                 words=(("1", "answers", GOOD), ("0", "silent", BAD)), width=6),
            stat("Behind", "What would be lost with the other region now. Red: more than 5 s.", "s",
                 "max(exchange_mirror_lag_seconds{$})", above(2, 5), width=6),
            stat("Copies that cannot go on", "Red: fenced, or another journal. It does not mend itself.", "short",
                 "sum(exchange_mirror_broken{$})", ZERO, width=6),
            stat("Commands here", "The last that is durable in this region.", "short",
                 "max(exchange_mirror_sequence{$})", PLAIN, width=6),
        )),
        Row("The copy", (
            graph("Copied", "A second. Nothing while the other region trades: the copy stands still.", "ops",
                  ask("sum(rate(exchange_mirror_commands_total{$}[$r]))", "commands")),
            graph("Not here yet", "Records. A ramp: the way between the regions, or the brokers here, are too slow.",
                  "short", ask("max by (replica) (exchange_mirror_lag_records{$})", "{{replica}}")),
            graph("Behind", "For how long at most a record has waited.", "s",
                  ask("max by (replica) (exchange_mirror_lag_seconds{$})", "{{replica}}"), steps=above(2, 5)),
            of_kind("state-timeline", "Why it cannot go on", "Red from then on: `tapewatch region status` says why.",
                    "short",
                    ask("max by (reason) (exchange_mirror_broken{$})", "{{reason}}"), steps=ZERO,
                    words=(("0", "goes on", GOOD), ("1", "ended", BAD)), width=24),
        )),
    ),
)  # fmt: skip
