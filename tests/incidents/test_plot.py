import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.plot import MARKS, NARROW, WIDE, Mark, Plot, figure, nice_ticks, scaled, sparkline, to_svg
from kernel.time import SECOND, Instant

START = 1_772_443_800 * SECOND


def plot_of(*values: float, marks: Any = (), **kwargs: Any) -> Plot:
    points = tuple((Instant(START + n * SECOND), float(value)) for n, value in enumerate(values))
    told = tuple(Mark(name, Instant(START + round(at * SECOND))) for name, at in marks)
    facts: dict[str, Any] = {"title": "Latency", "description": "It rose and fell.", "unit": "seconds", **kwargs}
    return Plot(points=points, marks=told, **facts)


def texts(svg: str) -> list[str | None]:
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def paths(svg: str) -> list[str]:
    return re.findall(r'<path class="curve" d="([^"]+)"', svg)


def test_a_drawing_names_its_unit_its_time_and_its_marks():
    svg = to_svg(plot_of(0.01, 0.9, 0.01, marks=[("fault", 0.5), ("proof", 1.5)], expected=("<", 0.1)), WIDE, "p")
    told = texts(svg)
    assert {"ms", "seconds since the fault", "fault", "proof", "proof asks < 100 ms"} <= set(told)
    assert 'class="band"' in svg


def test_a_missing_value_breaks_the_curve_instead_of_bridging_it():
    assert len(paths(to_svg(plot_of(1, 2, 3, math.nan, 4, 5), WIDE, "p"))) == 2
    assert len(paths(to_svg(plot_of(1, 2, 3, 4, 5), WIDE, "p"))) == 1


def test_a_long_silence_breaks_the_curve():
    whole = plot_of(1, 2, 3, 4)
    late = tuple((Instant(at + 60 * SECOND), value) for at, value in whole.points)
    gap = Plot(title="", description="", unit="", points=whole.points + late)
    assert len(paths(to_svg(gap, WIDE, "p"))) == 2


def test_a_flag_has_no_slopes():
    assert "L" not in paths(to_svg(plot_of(1, 0, 0, 1, unit="flag"), WIDE, "p"))[0]


def test_a_single_sample_is_a_dot_and_none_is_no_drawing():
    assert 'class="dot"' in to_svg(plot_of(4), WIDE, "p")
    assert to_svg(plot_of(math.nan, math.inf), WIDE, "p") == ""
    assert sparkline(plot_of(math.nan)) == ""


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_labels_of_marks_never_overlap(size):
    svg = to_svg(plot_of(*range(30), marks=[(name, 5 + n * 4.4) for n, name in enumerate(MARKS)]), size, "p")
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(start|end)">(\w+)</text></g>', svg)
    assert len(found) == len(MARKS)
    spans: list[tuple[float, float, str]] = []
    for x, y, anchor, name in found:
        width = len(name) * size.letter * 0.56
        left = float(x) if anchor == "start" else float(x) - width
        assert left >= 0
        assert left + width <= size.width
        assert not [one for one in spans if one[2] == y and one[0] < left + width and left < one[1]]
        spans.append((left, left + width, y))


def test_hostile_names_stay_text():
    text = "</svg><script>alert(1)</script>\"'&\x00\u2028"
    hostile = plot_of(1, 2, marks=[(text, 0.5)], title=text, description=text, unit=text, expected=(text, 1.0))
    svg = to_svg(hostile, WIDE, text)
    assert "<script" not in svg
    assert {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}.isdisjoint({"script"})


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=40),
    st.lists(st.tuples(st.sampled_from([*MARKS, "other"]), st.floats(-50, 90)), max_size=6),
)
@settings(max_examples=120, deadline=None)
def test_any_finite_curve_is_well_formed_and_inside_its_box(values, marks):
    svg = to_svg(plot_of(*values, marks=marks), NARROW, "p")
    if not any(math.isfinite(value) for value in values):
        assert svg == ""
        return
    ET.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg
    for path in paths(svg):
        for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path):
            assert 0 <= float(x) <= NARROW.width
            assert 0 <= float(y) <= NARROW.height


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (1204, "1,204"),
        (0.2, "0.2"),
        (0.0123456, "0.01235"),
        (812.5, "812.5"),
        (-3.25, "-3.25"),
        (math.nan, "not a number"),
        (2.0, "2"),
    ],
)
def test_figures_read_as_people_write_them(value, told):
    assert figure(value) == told


def test_ticks_are_round_and_cover_the_span():
    assert nice_ticks(0, 0.98, 4) == (0, 0.5, 1.0)
    assert nice_ticks(-20, 30, 8)[0] <= -20
    assert nice_ticks(-20, 30, 8)[-1] >= 30


def test_seconds_below_one_read_in_milliseconds():
    assert scaled("seconds", 0.9) == (1000.0, "ms")
    assert scaled("seconds", 1.5) == (1.0, "s")
    assert scaled("bool", 1) == (1.0, "")


def test_a_sparkline_shows_the_peak():
    line = sparkline(plot_of(0, 0, 9, 0), columns=4)
    assert line == "▁▁█▁"
