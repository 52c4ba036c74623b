"""The bugs: a passage of the engine's source each, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plant:
    """One bug."""

    name: str
    rule: str
    module: str
    right: str
    wrong: str
    profile: str = "plain"
    quick: bool = False
    """Whether the normal run looks for it, too."""


PLANTS: tuple[Plant, ...] = ()
