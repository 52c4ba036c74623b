"""What a detector has found counts as moved, even where a steady growth would not."""

import numpy as np

from anomaly.causes import rank
from anomaly.movement import Move, Track, Verdict, Window, judge, known_to_move
from kernel.time import SECOND, Instant

GRAPH = {"gateway": ("engine",), "settlement": ("engine",)}
ALERT = 230
WINDOW = Window(Instant(0), Instant(ALERT * SECOND), Instant((ALERT + 5) * SECOND))


def track(service: str, metric: str, values) -> Track:
    return Track(service, metric, "bytes", np.arange(len(values), dtype=np.int64) * SECOND, np.asarray(values, float))


def leak(seed: int = 1) -> Track:
    """Memory that grows a little by itself, and from second 195 on much faster."""
    rng = np.random.default_rng(seed)
    rows = np.arange(ALERT + 5)
    grown = 90e6 + 20e3 * rows + np.maximum(0, rows - 195) * 200e3 + rng.normal(0, 50e3, len(rows))
    return track("settlement", "process-memory of settlement-1", grown)


def wobble(service: str, metric: str, seed: int) -> Track:
    rng = np.random.default_rng(seed)
    values = rng.normal(10.0, 1.0, ALERT + 5)
    values[-12:] += 6.0
    return track(service, metric, values)


def test_a_leak_that_a_detector_found_is_ranked_first_before_a_wobble_of_another_service():
    tracks = [leak(), wobble("engine", "engine-match-time", 2), track("gateway", "rate", np.full(ALERT + 5, 5.0))]
    known = {("settlement", "process-memory of settlement-1")}
    case = rank(tracks, GRAPH, WINDOW, about="settlement", known=known)
    assert case.suspects[0].service == "settlement"
    assert case.suspects[0].moved[0].metric == "process-memory of settlement-1"


def test_its_onset_and_size_are_read_off_the_values():
    move = known_to_move(leak(), WINDOW)
    assert move is not None
    assert move.up
    assert 185 <= move.at // SECOND <= 215
    assert move.peak > move.high


def test_a_series_without_a_past_or_without_news_says_nothing():
    short = track("settlement", "memory", np.ones(3))
    assert known_to_move(short, WINDOW) is None
    late = track("settlement", "memory", np.ones(160))
    assert known_to_move(late, WINDOW) is None


def test_what_no_detector_found_is_judged_as_before():
    still = track("gateway", "rate", np.full(ALERT + 5, 5.0))
    assert judge(still, WINDOW) is Verdict.STILL
    assert rank([still, leak()], GRAPH, WINDOW, known=set()).series == 2
    assert isinstance(known_to_move(leak(), WINDOW), Move)
