"""`anomaly watch` and `anomaly feedback` as people meet them."""

import io
import json

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

import cli
from control import anomaly_desk, verbs_anomaly_live
from control.anomaly_feedback import Said, after
from control.anomaly_state import encode, save_kept
from control.anomaly_view import View, view_of
from control.anomaly_watch import Kind
from control.layout import Layout
from kernel.time import SECOND, Instant
from tests.control.anomaly_bed import DIGEST, at, calm, watch_of

RUN = CliRunner()


def seen(rows=9, latency=50.0, trouble=""):
    watch = watch_of()
    for row in range(1, rows):
        watch.advance(calm(row), Kind.LIVE)
    watch.advance(calm(rows, latency=latency), Kind.LIVE)
    return watch, view_of(watch, Instant(at(rows) + SECOND), trouble=trouble, refused={})


@pytest.fixture
def estate(tmp_path):
    layout = Layout(tmp_path)
    layout.version.write_text("1\n")
    watch, _ = seen()
    save_kept(layout.anomaly / "state.bin", encode(watch.kept(), DIGEST))
    return layout


def said(layout):
    return after(layout.anomaly / "feedback.jsonl", 0)[0]


def feedback(layout, *arguments):
    return RUN.invoke(cli.app, ["anomaly", "feedback", "--state", str(layout.root), *arguments])


def test_a_series_or_a_page_is_answered_though_nothing_runs_and_the_answer_is_kept(estate):
    told = feedback(estate, "latency/gateway-1", "--false", "--by", "ann")
    assert told.exit_code == 0
    assert "latency/gateway-1 was a false alarm" in told.stdout
    page = anomaly_desk.known(estate)[0][0].id
    assert json.loads(feedback(estate, page, "--true", "--json").stdout) == {"said_of": [page], "false_alarm": False}
    first, second = said(estate)
    assert (first.what, first.false_alarm, first.by) == ("latency/gateway-1", True, "ann")
    assert (second.what, second.false_alarm) == (page, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latency/gateway-1"], "was it a false alarm"),
        (["latency/gateway-9", "--false"], "no page and no watched series is called that; such as latency/gateway-1"),
        (["latenc", "--false"], "such as latency/gateway-1"),
        (["../../etc/passwd", "--true"], "no page and no watched series"),
    ],
)
def test_what_nobody_knows_is_refused_in_a_sentence_and_kept_nowhere(estate, arguments, words):
    told = feedback(estate, *arguments)
    assert told.exit_code == 2
    assert words in " ".join(told.stderr.split())
    assert "Traceback" not in told.output
    assert said(estate) == []


def test_an_incident_stands_for_the_series_of_its_alerts(estate, monkeypatch):
    alerts = {
        "a": {"labels": {"alertname": "SeriesAnomalous", "series": "latency", "item": "gateway-1"}},
        "b": {"labels": {"alertname": "SeriesAnomalous", "series": "flow"}},
        "c": {"labels": {"alertname": "GatewayDown", "series": "memory"}},
    }
    monkeypatch.setattr(anomaly_desk, "load_addresses", lambda _: msgspec.defstruct("A", [("control", str, "u")])())
    monkeypatch.setattr(anomaly_desk, "read_secret", lambda _: "secret")
    monkeypatch.setattr(anomaly_desk, "call", lambda *_, **__: {"alerts": alerts})
    told = feedback(estate, "INC-20260302-0001", "--false")
    assert told.exit_code == 0, told.output
    assert [(one.what, one.about) for one in said(estate)] == [
        ("flow", "INC-20260302-0001"), ("latency/gateway-1", "INC-20260302-0001")
    ]  # fmt: skip
    monkeypatch.setattr(anomaly_desk, "call", lambda *_, **__: {"alerts": {}})
    assert feedback(estate, "INC-20260302-0002", "--false").exit_code == 2


def test_without_an_estate_there_is_one_sentence(tmp_path, estate):
    told = RUN.invoke(cli.app, ["anomaly", "watch", "--once", "--state", str(tmp_path / "none")])
    assert told.exit_code == 2
    told = RUN.invoke(cli.app, ["anomaly", "watch", "--once", "--state", str(estate.root)])
    assert told.exit_code == 4
    assert "no estate runs" in told.stderr


def test_once_in_a_pipe_is_lines_the_most_unusual_first_and_json_is_the_view(estate, monkeypatch):
    _, view = seen()
    monkeypatch.setattr(anomaly_desk, "view", lambda _: view)
    arguments = ["anomaly", "watch", "--once", "--state", str(estate.root)]
    first, second, third = RUN.invoke(cli.app, arguments).stdout.splitlines()
    assert first.startswith("2 series, 1 unusual, 0 warming up, readings 1.0 s old; pages of the day 1, promised 0.14")
    assert second.startswith("latency/gateway-1 (gateway): 50 ms, expected 5 to 5 ms, score 0.90, novelty: 50")
    assert third.startswith("flow (market-data): 100 messages/s")
    shown = json.loads(RUN.invoke(cli.app, [*arguments, "--json", "--service", "gateway"]).stdout)
    assert [one["id"] for one in shown["series"]] == ["latency/gateway-1"]
    assert msgspec.convert(json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout), View) == view


def test_in_a_pipe_each_beginning_and_end_is_a_line():
    _, quiet = seen(latency=5.0)
    watch, loud = seen()
    begun, ended = verbs_anomaly_live.changes(loud, quiet), verbs_anomaly_live.changes(quiet, loud)
    assert len(begun) == len(ended) == 1
    assert "ALERT latency/gateway-1 (gateway): 50 ms" in begun[0]
    assert begun[0].endswith(f"page {watch.pages[0].id}")
    assert " calm latency/gateway-1" in ended[0]
    assert verbs_anomaly_live.changes(loud, loud) == []
    _, stale = seen(trouble="Prometheus does not answer")
    assert "no scores of the present: readings are 1 s old; Prometheus" in verbs_anomaly_live.changes(stale, loud)[0]
    assert len(verbs_anomaly_live.changes(loud, None)) == 2


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0015021, "s", "1.502 ms"), (0.00000312, "s", "3.12 us"), (1.5, "s", "1.5 s"), (0, "s", "0 s"),
        (86_123_456, "bytes", "86.12 MB"), (-2_500, "bytes/s", "-2.5 kB/s"), (12, "bytes", "12 B"),
        (41.234, "orders/s", "41.23 orders/s"), (None, "s", "-"), (0.5, "", "0.5"),
    ],
)  # fmt: skip
def test_figures_are_shown_as_people_read_them(value, unit, text):
    assert anomaly_desk.figure(value, unit) == text


def test_a_range_has_one_unit_and_a_narrow_terminal_shows_the_table_whole():
    assert anomaly_desk.span(98_020_000, 99_330_000, "bytes") == "98.02 to 99.33 MB"
    assert anomaly_desk.span(0.0, 0.0021, "s") == "0 to 2.1 ms"
    assert anomaly_desk.span(None, 1.0, "s") == "-"
    _, view = seen()
    console = Console(width=80, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    console.print(verbs_anomaly_live.table(view, 5))
    text = console.export_text()
    assert "latency/gateway-1" in text
    assert "5 to 5 ms" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_said_is_one_line_of_bounded_length(tmp_path):
    from control.anomaly_feedback import append
    from kernel.errors import InputError

    with pytest.raises(InputError, match="at most"):
        append(tmp_path / "f", Said(at=Instant(1), by="b" * 5_000, what="x", false_alarm=True))
    assert after(tmp_path / "f", 0) == ([], 0)
