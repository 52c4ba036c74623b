"""Settings to compare: each part of the detectors removed in turn, and a small grid to see whether tuning transfers."""

from __future__ import annotations

from anomaly.settings import Settings


def without() -> list[tuple[str, Settings]]:
    return []


def grid() -> list[tuple[str, Settings]]:
    return []
