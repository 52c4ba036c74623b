"""The program in the README does what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_program_in_the_readme_runs_and_prints_the_book_the_position_and_a_hash():
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {})
    assert re.fullmatch(
        r"\(LevelView\(price=10010, quantity=50, order_ids=\(1,\)\),\) 250 [0-9a-f]{12}\n", printed.getvalue()
    )
