"""A small fleet behind the port of the detectors: how far a value is outside all that was seen."""

from __future__ import annotations

import json
import math

import numpy as np

from anomaly.detector import Channel, Finding, Scores, Verdict
from control.anomaly_watch import Fleets
from kernel.time import Instant

WARM = 5
"""Rows before the first page."""
CALM = 3
"""Rows inside the range that end an episode."""


class PlainFleet:
    """One row of plain numbers a series: rows, lowest, highest, calm rows, episode, patience."""

    def __init__(self, count, settings=None):
        self.state = np.zeros((count, 6))
        self.state[:, 5] = 1.0
        self.restarted, self.slots = [], None
        for index in range(count):
            self._clear(index)
        self._found = {}

    def __len__(self):
        return len(self.state)

    def _clear(self, index):
        self.state[index, :5] = [0, math.inf, -math.inf, 0, 0]

    def advance(self, at, values, slots=None):
        n = len(self)
        self.slots = slots
        out = Scores(
            np.zeros(n), np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, np.int8), np.full(n, np.nan),
            np.full(n, np.nan), np.full(n, Verdict.MISSED, np.int8),
        )  # fmt: skip
        self._found = {}
        for index in range(n):
            self._one(index, int(at[index]), float(values[index]), out)
        return out

    def _one(self, index, at, value, out):
        rows, low, high, calm, episode, patience = self.state[index]
        out.episode[index] = bool(episode)
        if not math.isfinite(value):
            return
        out.verdict[index] = Verdict.WARMING if rows < WARM else Verdict.SCORED
        if rows:
            out.low[index], out.high[index] = low, high
        margin = patience * max(high - low, 1.0) if rows else math.inf
        outside = rows >= WARM and (value > high + margin or value < low - margin)
        if outside:
            out.score[index] = 0.9
            out.channel[index] = Channel.NOVELTY
            out.alert[index] = not episode
            out.episode[index] = True
            self._found[index] = Finding(
                Instant(at), Channel.NOVELTY, value, low, high, f"{value:g}, expected {low:g} to {high:g}"
            )
            self.state[index, 3:5] = [0, 1]
            return
        calm = calm + 1 if episode else 0
        if calm >= CALM:
            episode = calm = 0
        out.episode[index] = bool(episode)
        self.state[index] = [rows + 1, min(low, value), max(high, value), calm, episode, patience]

    def finding(self, index):
        return self._found.get(index)

    def feedback(self, index, *, false_alarm):
        self.state[index, 5] = 5.0 if false_alarm else 1.0

    def restart(self, index):
        self.restarted.append(index)
        self._clear(index)

    def vacate(self, index):
        self._clear(index)
        self.state[index, 5] = 1.0

    def save(self):
        return json.dumps(self.state.tolist()).encode()

    @classmethod
    def restore(cls, data):
        rows = json.loads(data)
        fleet = cls(len(rows))
        fleet.state = np.array(rows)
        fleet.restarted = []
        return fleet


PLAIN = Fleets(make=PlainFleet, restore=PlainFleet.restore, budget_per_day=0.07)
