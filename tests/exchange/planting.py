# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Bugs planted into the engine's source, and after how many commands the comparison finds each.

A bug is a passage of a module and what stands there instead. The module is read anew with it, beside the right one,
which stays as it is. `python -m tests.exchange.planting` writes the table into `docs/exchange-rules.md`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from tests.exchange.compared import differs, walk
from tests.exchange.planted_bugs import PLANTS, Plant
from tests.exchange.random_commands import PROFILES

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "exchange-rules.md"
BEGIN, END = "<!-- planted bugs: written by tests/exchange/planting.py -->", "<!-- end of planted bugs -->"
SHARED = {"exchange.commands", "exchange.events", "exchange.types"}
"""Both engines must speak of the same commands and events."""
STEPS = 2_000
"""So many commands a script."""
SECONDS = 5.0
"""So much processor time a script may take."""
SCRIPTS = 8
"""So many scripts until a bug counts as not found."""


@dataclass(frozen=True)
class Caught:
    """How a bug was found."""

    by: str
    commands: int


class PlantedLoader(SourceFileLoader):
    """Reads a module's source with a passage replaced."""

    def __init__(self, fullname: str, path: str, plant: Plant) -> None:
        super().__init__(fullname, path)
        self.plant = plant

    def get_code(self, fullname: str) -> Any:
        source = Path(self.path).read_text("utf-8")
        if fullname == f"exchange.{self.plant.module}":
            found = source.count(self.plant.right)
            assert found == 1, f"{self.plant.name}: its passage is {found} times in {fullname}; plant it anew"
            source = source.replace(self.plant.right, self.plant.wrong)
        return compile(source, self.path, "exec")


class PlantedFinder:
    """Finds the exchange's modules as source, the planted one among them."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = ROOT / (fullname.replace(".", "/") + ".py")
        if not fullname.startswith("exchange.") or not file.is_file():
            return None
        return spec_from_file_location(fullname, file, loader=PlantedLoader(fullname, str(file), self.plant))


@contextmanager
def set_aside() -> Iterator[None]:
    """Let the exchange's modules be imported anew within, and put the old ones back."""
    package = import_module("exchange")
    kept = {name: module for name, module in sys.modules.items() if name.startswith("exchange.")}
    for name in kept.keys() - SHARED:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [one for one in sys.modules if one.startswith("exchange.")]:
            del sys.modules[name]
        sys.modules.update(kept)
        for name, module in kept.items():
            if name.count(".") == 1:
                setattr(package, name.removeprefix("exchange."), module)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` where the program stands when it has computed so long: a bug may never end."""

    def end(*_: object) -> None:
        raise TimeoutError("it does not end")

    old = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)


def engine_with(plant: Plant) -> Any:
    """Return the class of an engine that has the bug."""
    finder = PlantedFinder(plant)
    with set_aside():
        sys.meta_path.insert(0, finder)
        try:
            return import_module("exchange.engine").Engine
        finally:
            sys.meta_path.remove(finder)


def hunt(plant: Plant, scripts: int = SCRIPTS) -> Caught | None:
    """Walk until the bug shows; None when it does not."""
    kind = engine_with(plant)
    profile = next(one for one in PROFILES if one.name == plant.profile)
    for seed in range(scripts):
        with at_most(SECONDS):
            commands, difference = walk(profile, seed, STEPS, kind)
        if difference is not None:
            right = differs(profile, commands)
            assert right is None, f"{plant.name}: the engine differs without it, too: {right}"
            return Caught(difference.split(" ", 1)[0].rstrip(":"), seed * STEPS + len(commands))
    return None


def table(plants: tuple[Plant, ...]) -> list[str]:
    """Return the rows of the table: the bug, its rule, what gave it away, after how many commands."""
    rows = ["| bug | rule | scripts | caught by | after commands |", "|---|---|---|---|---|"]
    for plant in plants:
        caught = hunt(plant)
        end = "not caught | |" if caught is None else f"{caught.by} | {caught.commands:,} |"
        rows.append(f"| {plant.name} | {plant.rule} | {plant.profile} | {end}")
    return rows


def written() -> list[str]:
    """Return the rows that the document holds."""
    text = DOCUMENT.read_text("utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()


def main() -> None:
    """Write the table anew."""
    text = DOCUMENT.read_text("utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    DOCUMENT.write_text(before + "\n" + "\n".join(table(PLANTS)) + "\n" + after, "utf-8")


if __name__ == "__main__":
    main()
