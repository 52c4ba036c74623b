"""Settings to compare: each part of the detectors removed in turn, and a small grid to see whether tuning transfers."""

from __future__ import annotations

import dataclasses

from anomaly.settings import Settings

SWITCH = "use_"
FACTORS = (0.5, 2.0)
TUNED = ("budget_per_day", "memory", "recur", "bar", "refractory", "clock_bar")
VOTES = (2, 4)


def without() -> list[tuple[str, Settings]]:
    """Every switch of the settings, off by itself."""
    names = [field.name for field in dataclasses.fields(Settings) if field.name.startswith(SWITCH)]
    return [
        (f"without {name.removeprefix(SWITCH)}", dataclasses.replace(Settings(), **{name: False})) for name in names
    ]


def grid() -> list[tuple[str, Settings]]:
    """Each number that decides how soon a page comes, at half and at twice what it is, and the votes one off."""
    usual = Settings()
    found = []
    for name in TUNED:
        value = getattr(usual, name, None)
        if value is None:
            continue
        for factor in FACTORS:
            other = type(value)(value * factor)
            found.append((f"{name} {other:g}", dataclasses.replace(usual, **{name: other})))
    if hasattr(usual, "votes"):
        found += [(f"votes {votes}", dataclasses.replace(usual, votes=votes)) for votes in VOTES]
    return found
