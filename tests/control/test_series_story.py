from __future__ import annotations

import functools

import numpy as np
import pytest

from anomaly.baselines.ewma import Ewma
from anomaly.detector import Verdict
from control.series_joint import alone, ours
from control.series_plot import draw
from control.series_story import Series, at_rows, load, rows_at, tell
from kernel.errors import InputError
from kernel.time import MINUTE, Instant

MAKE = functools.partial(alone, Ewma)


def _series(count=400, columns=1, *, name="orders.csv"):
    rng = np.random.default_rng(4)
    values = 100.0 + rng.normal(0.0, 1.0, (count, columns))
    values[300:301, columns - 1] += 60.0
    names = tuple(f"m{k}" for k in range(columns))
    return Series(name, names, np.arange(count, dtype=np.int64) * MINUTE, values)


def test_each_page_is_put_into_the_words_of_the_detector_at_that_row():
    series = _series()
    story = tell(series, MAKE)
    page = next(one for one in story.pages if one.row == 300)
    assert page.score.alert
    assert page.score.score == story.scores.score[300]
    assert page.sentence.startswith(f"{series.values[300, 0]:g}, expected ")
    assert [one.row for one in story.pages] == np.flatnonzero(story.scores.alert).tolist()


def test_of_several_columns_the_words_name_the_one_to_blame():
    page = next(one for one in tell(_series(columns=3), MAKE).pages if one.row == 300)
    assert page.sentence.startswith("m2: ")
    assert page.blamed[0] == "m2"


def test_any_row_can_be_asked_about():
    series = _series()
    series.values[350] = np.nan
    calm, missed = at_rows(series, [200, 350], MAKE)
    assert calm.score.finding is None
    assert "expected" in calm.sentence
    assert missed.score.verdict is Verdict.MISSED
    assert missed.sentence == "there was no value"


def test_a_time_names_the_row_at_or_before_it():
    series = _series(10)
    assert rows_at(series, Instant(3 * MINUTE)) == [3]
    assert rows_at(series, Instant(4 * MINUTE - 1)) == [3]
    for outside in (-1, 10 * MINUTE):
        with pytest.raises(InputError, match=r"it goes from 1970-01-01T00:00:00.000000Z to 1970-01-01T00:09"):
            rows_at(series, Instant(outside))


def test_a_time_that_is_repeated_or_goes_back_names_all_rows_of_it_and_no_other():
    series = _series(10)
    series.at[:] = np.array([0, 1, 2, 2, 5, 3, 6, 2, 8, 9]) * MINUTE
    assert rows_at(series, Instant(2 * MINUTE)) == [2, 3, 7]
    assert rows_at(series, Instant(6 * MINUTE)) == [6]
    assert rows_at(series, Instant(7 * MINUTE)) == [6]
    series.at[:] = MINUTE
    assert rows_at(series, Instant(MINUTE)) == list(range(10))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_row_that_was_left_aside_says_so_also_within_an_episode(columns, quiet):
    series = _series(columns=columns)
    if not quiet:
        series.values[300:] = 160.0
    series.at[302], series.at[304] = series.at[301], series.at[10]
    repeated, backward = at_rows(series, [302, 304])
    assert repeated.sentence == "it was left aside: its time is that of the row before"
    assert backward.sentence == "it was left aside: its time lies before that of a row before it"
    scores = ours(columns).run(series.at, series.values).score
    for one, row in ((repeated, 302), (backward, 304)):
        assert (one.score.finding, one.blamed, one.score.score) == (None, (), scores[row - 1] if columns == 1 else 0.0)


def test_a_file_is_loaded_with_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("timestamp,value\n0,1\nnever,2\n60,x\n120,3\n")
    series, troubles = load(path)
    assert series.at.tolist() == [0, 60 * 10**9, 120 * 10**9]
    assert troubles == [f"{path}:3: 'never' is no time", f"{path}:4: 'x' in column value is no number, read as missed"]
    path.write_text("timestamp,value\n0,\n60,\n")
    with pytest.raises(InputError, match="no row has a time and a value"):
        load(path)
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "b.csv")


@pytest.mark.parametrize(("columns", "count"), [(1, 400), (1, 9000), (6, 400)])
def test_a_picture_shows_every_page_and_its_sentence(tmp_path, columns, count):
    story = tell(_series(count, columns), MAKE)
    draw(story, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<svg" in text
    for page in story.pages[:8]:
        assert page.sentence.split(",")[0] in text
    assert f"orders.csv: {len(story.pages)} pages" in text or "orders.csv: one page" in text
    draw(story, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_the_same_story_is_the_same_bytes(tmp_path):
    story = tell(_series(), MAKE)
    for name in ("a.svg", "b.svg"):
        draw(story, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_takes_hostile_names_as_text(tmp_path):
    draw(tell(_series(name="$\\frac{1}{<b>&\x00"), MAKE), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text


@pytest.mark.parametrize("values", [[5.0] * 30, [np.nan] * 29 + [1.0], [1e300] * 15 + [-1e300] * 15, [7.0]])
def test_a_picture_of_a_strange_series_can_be_drawn(tmp_path, values):
    series = Series("s", ("v",), np.arange(len(values), dtype=np.int64) * MINUTE, np.array(values)[:, None])
    draw(tell(series, MAKE), tmp_path / "a.png")


def test_a_picture_in_no_known_form_or_place_is_refused(tmp_path):
    story = tell(_series(50), MAKE)
    with pytest.raises(InputError, match=r"end the name in \.svg or \.png"):
        draw(story, tmp_path / "a.pdf")
