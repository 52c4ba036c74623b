"""The board of settlement by sagas: what is open, what stands, and the books of the four services."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import BAD, GOOD, ONE, ZERO, Board, Row, above, ask, graph, spread, stat

_JOINED: Final = (("1", "connected", GOOD), ("0", "lost", BAD))
SAGAS: Final = Board(
    name="sagas",
    title="Settlement by sagas",
    about="Trades settled across cash, securities, fees and clearing: what is open, what stands, and why.",
    jobs=("saga",),
    rows=(
        Row("What must be zero", (
            stat("Stuck", "Sagas that stand at a step too long. Red: the runbook restarts the service they wait for.",
                 "short", "sum(exchange_saga_stuck{$})", ZERO, width=6),
            stat("Drift of the books", "Sum of each book, absolute. Red: a balance was changed past its service.",
                 "short", "max(exchange_saga_amounts_drift{$})", ZERO, width=6),
            stat("Oldest open saga", "Its age. Red: a service is away, or more comes than is carried out.", "s",
                 "max(exchange_saga_oldest_seconds{$})", above(5, 20), width=6),
            stat("Stream of trades", "Of the coordinator. Red: no trade is read.", "short",
                 "max(exchange_saga_source_connected{$})", ONE, words=_JOINED, width=6),
        )),
        Row("Sagas", (
            graph("Begun and ended", "A second. Cancelled ones were refused, or given up before the pivot.", "ops",
                  ask("sum(rate(exchange_saga_begun_total{$}[$r]))", "begun"),
                  ask("sum by (end) (rate(exchange_saga_ended_total{$}[$r]))", "{{end}}")),
            graph("Open", "As the coordinator counts them; a service counts those it still speaks of.", "short",
                  ask("max by (replica) (exchange_saga_open{$})", "{{replica}}")),
            graph("From begin to end", "Red: see which step waits, below.", "s",
                  *spread("exchange_saga_end_seconds"), steps=above(2.5, 20)),
            graph("From order to settled", "From the command that traded to the end of its saga.", "s",
                  *spread("exchange_order_to_settled_seconds"), steps=above(5, 30), width=12),
            graph("Stuck, by whom they wait for", "One line a service and reason. The first in a chain is the cause.",
                  "short", ask("sum by (party, reason) (exchange_saga_stuck{$}) > 0", "{{party}} {{reason}}"),
                  width=12),
        )),
        Row("Services", (
            graph("Steps", "Answered the first time, a second, by verdict.", "ops",
                  ask("sum by (verdict) (rate(exchange_saga_steps_total{$}[$r]))", "{{verdict}}")),
            graph("Answered from memory", "A second. A rise: messages come twice, or answers are lost.", "ops",
                  ask("sum by (replica) (rate(exchange_saga_repeats_total{$}[$r]))", "{{replica}}")),
            graph("Commit of a batch", "Of all services. Red: the database.", "s",
                  *spread("exchange_saga_commit_seconds"), steps=above(0.25, 1)),
            graph("From a step's turn to its answer", "Two messages, one commit and the journal's.", "s",
                  *spread("exchange_saga_step_seconds"), steps=above(0.5, 5), width=24),
        )),
    ),
)  # fmt: skip
