# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The program in `docs/foreign-tapes.md` does what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "foreign-tapes.md"


def test_the_program_on_the_page_carries_out_a_foreign_tape():
    text = PAGE.read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(program, PAGE.name, "exec"), names)
    assert f"`trades` is `{names['trades']}`" in text
    assert names["refused"] == []
    states, engine = names["states"], names["engine"]
    assert {theirs: (view.status.value, view.filled, view.open) for theirs, view in states.items()} == {
        "1": ("filled", 60, 0), "2": ("canceled", 0, 0), "101": ("resting", 10, 90),
        "102": ("filled", 100, 0), "3": ("filled", 100, 0), "103": ("filled", 20, 0),
    }  # fmt: skip
    assert engine.average_price(names["ours"]["103"]) == 950
    assert [(level.price, level.quantity) for level in names["book"].bids] == [(900, 90)]
    assert names["book"].asks == ()
    assert sum(amount for (_, asset), amount in names["balances"].items() if asset == "$cash") == 0
