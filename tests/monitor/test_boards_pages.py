"""Previews show what the boards say of the data they are given, and let no label write into the page."""

import asyncio
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import app
from kernel.errors import PermanentError
from kernel.time import MINUTE, SECOND, Duration, Instant
from monitor.adapters.boards import files, reading
from monitor.adapters.boards.drawing import colours
from monitor.adapters.boards.figures import shown
from monitor.adapters.boards.gathering import Series, Shown, scene
from monitor.adapters.boards.page import to_html
from monitor.ports import Curve

END = Instant(1_800_000_000 * SECOND)
SPAN = Duration(10 * MINUTE)
HOSTILE = "<script>alert(1)</script>\"'&{{x}}\x1b[31m</style>"
LINKS = [("tapewatch-red", HOSTILE)]


class Prometheus:
    """Answers every question with the same curves."""

    def __init__(self, labels, values, refuse=False):
        self.labels, self.values, self.refuse = labels, values, refuse

    async def curve(self, query, start, end, step):
        if self.refuse:
            raise PermanentError(f"no curve of {query} {HOSTILE}")
        return [
            Curve(labels, [(Instant(at), self.values(number)) for number, at in enumerate(range(start, end + 1, step))])
            for labels in self.labels
        ]


def page_of(name, prometheus):
    board = reading.read_one(files.GRAFANA / f"tapewatch-{name}.json")
    return to_html(asyncio.run(scene(board, prometheus, END, SPAN)), LINKS)


class Tags(HTMLParser):
    VOID = frozenset({"meta", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes.extend(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes.extend(attrs)


LABELS = [
    {"symbol": HOSTILE, "le": "0.1", "replica": HOSTILE, "job": HOSTILE, "reason": HOSTILE, "slo": HOSTILE},
    {"symbol": "B", "le": "+Inf", "replica": "g-1", "job": "gateway", "reason": "x", "slo": "y"},
]


@pytest.mark.parametrize("path", sorted(files.GRAFANA.glob("*.json")), ids=lambda path: path.stem)
def test_a_page_is_well_formed_and_runs_and_fetches_nothing_whatever_labels_say(path):
    page = page_of(path.stem.removeprefix("tapewatch-"), Prometheus(LABELS, lambda number: number % 7))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "iframe", "img", "link", "object", "embed", "form"}
    assert not [name for name, _ in tags.attributes if name.startswith("on") or name in {"src", "action"}]
    assert all(value.endswith(".html") for name, value in tags.attributes if name == "href")
    assert "\x1b" not in page
    assert "NaN" not in page
    assert "none so far" not in page


def test_a_page_without_data_says_so():
    page = page_of("red", Prometheus([], float))
    assert page.count("none so far") == 12


def test_what_is_no_number_is_left_out():
    page = page_of("red", Prometheus([{}], lambda number: math.nan if number % 2 else math.inf))
    assert page.count("none so far") == 12


def test_a_refused_question_shows_its_sentence():
    page = page_of("red", Prometheus([], float, refuse=True))
    assert page.count('class="trouble"') == 12
    assert "<script>" not in page


def test_limits_colour_what_they_limit():
    calm, red = (page_of("engine", Prometheus([{}], lambda _, v=v: v)) for v in (0, 1e9))
    assert "sound" in calm
    assert "not ready" in calm
    assert re.search(r'color:#d6453d[^"]*">1 G', red)


def test_the_same_meaning_has_the_same_colour():
    panel = reading.read_one(files.GRAFANA / "tapewatch-gateway.json").panels
    lines = next(one for _, one in panel if one["title"] == "Requests by outcome")
    series = [Series(name, {}, [(0.0, 1.0)]) for name in ("accepted", "rejected", "strange", "published")]
    good, bad, *others = colours(Shown(lines, series))
    assert (good, bad) == ("#2f9e5b", "#d6453d")
    assert not set(others) & {good, bad}
    (published,) = colours(Shown(lines, series[-1:]))
    assert published != bad, "it only holds the letters of shed"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"), (0, "s", "0 s"), (90, "s", "1.5 min"), (4500, "ops", "4.5 k/s"), (2e-6, "s", "2 µs"),
        (0.9995, "percentunit", "99.95 %"),
        (0.5, "percentunit", "50 %"), (1.5e9, "bytes", "1.5 GB"), (12, "suffix: lots", "12 lots"),
        (1234, "short", "1.23 k"), (-3, "short", "-3"), (math.nan, "s", "no number"), (math.inf, "short", "∞"),
        (2e6, "Bps", "2 MB/s"), (0.0005, "ops", "0.0005/s"),
    ],
)  # fmt: skip
def test_figures_are_written_as_people_read_them(value, unit, text):
    assert shown(value, unit) == text


@given(st.floats(1e-9, 1e11), st.floats(1.2, 10))
def test_a_larger_value_never_reads_as_a_smaller_one(value, factor):
    sizes = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

    def read(text):
        number, _, suffix = text.partition(" ")
        return float(number) * sizes[suffix]

    small, large = (shown(each, "short") for each in (value, value * factor))
    assert read(small) <= read(large)
    if value > 1e-3:
        assert read(small) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("argv", [["--last", "soon"], ["--last", "1s"], ["no-such-board"], ["red", "--last", "900d"]])
def test_a_preview_that_makes_no_sense_is_refused_in_a_sentence(argv, tmp_path):
    done = CliRunner().invoke(app, ["dashboards", "preview", *argv, "--to", str(tmp_path), "--state", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []
