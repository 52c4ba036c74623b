"""The detectors' own words in an incident that one of their alerts opened; what is said when they cannot be read."""

import asyncio
import dataclasses

import msgspec
import pytest

from control import anomaly_found, plan, verbs_causes, verbs_incident
from control.anomaly_found import Finder, page_of
from control.anomaly_state import Page, encode, save_kept
from control.anomaly_view import view_of
from control.anomaly_watch import Kind
from control.config import load_config
from control.intake import StoreThread
from control.layout import Layout
from control.settings import load_settings
from control.state_dir import generate_instruments
from exchange.recording import RecordingLog
from incidents.adapters.memory_store import MemoryStore
from incidents.found import found_of
from incidents.incident import State
from incidents.timeline import Draft, EntryKind
from kernel.errors import TemporaryError
from kernel.time import MINUTE, SECOND, Instant
from tests.control.anomaly_bed import DIGEST, at, calm, watch_of
from tests.sim.library import GATEWAY
from tests.sim.virtual import run
from tests.sim.world import World

ALERT = Instant(at(9) + 5 * SECOND)
URL = "http://127.0.0.1:9"


class Still:
    def now(self):
        return Instant(ALERT + 10 * SECOND)


def seen():
    """A watch whose gateway's latency paged at the ninth row."""
    watch = watch_of()
    for row in range(1, 9):
        watch.advance(calm(row), Kind.LIVE)
    watch.advance(calm(9, latency=50.0), Kind.LIVE)
    return watch


class Bench:
    def __init__(self, folder):
        self.store, self.log, self.kept = MemoryStore(b"a key of the test"), RecordingLog(), folder / "state.bin"
        data = {"incident": "INC-1", "title": "t", "level": 3, "service": "gateway", "team": "t", "key": "k"}
        self.put(EntryKind.OPENED, data)
        self.thread = StoreThread(self.store)
        self.finder = Finder(
            self.thread, url=URL, kept=self.kept, clock=Still(), log=self.log, again_s=0.0
        )  # fmt: skip

    def put(self, kind, data):
        self.store.append("INC-1", [Draft(ALERT, kind, "control", "t", data)])

    def fire(self, fingerprint="f", name="SeriesAnomalous", starts_at=ALERT, **labels):
        told = {"alertname": name, "service": "gateway", "level": "3", **labels}
        alert = {"fingerprint": fingerprint, "alertname": name, "labels": told, "annotations": {}}
        self.put(EntryKind.ALERT_FIRING, {**alert, "starts_at": starts_at})

    @property
    def incident(self):
        found = self.store.incident("INC-1")
        assert found is not None
        return found

    @property
    def found(self):
        return [found_of(one) for one in self.store.timeline("INC-1") if one.kind is EntryKind.ANOMALY_FOUND]

    async def begin(self):
        self.finder.begin(self.incident)
        await asyncio.gather(*self.finder._waiting.values())

    async def end(self):
        drafts = await self.finder.at_end(self.incident, self.store.timeline("INC-1"))
        self.store.append("INC-1", drafts) if drafts else None


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    await bench.finder.stop()
    await bench.thread.close()


@pytest.fixture
def answers(monkeypatch):
    """The detectors' process; what it is asked, and what stands in its way."""
    asked, trouble = [], []
    view = view_of(seen(), Still().now(), trouble="", refused={})

    def call(method, url, *, timeout_s):
        asked.append((method, url, timeout_s))
        if trouble:
            raise TemporaryError(trouble[0])
        return msgspec.to_builtins(view)

    monkeypatch.setattr(anomaly_found, "call", call)
    return asked, trouble


async def test_an_incident_of_a_detectors_alert_gets_the_page_as_a_sealed_entry(bench, answers):
    bench.fire(series="latency", item="gateway-1")
    await bench.begin()
    (found,) = bench.found
    (page,) = seen().pages
    assert (found.page, found.found_at, found.channel) == (page.id, page.at, page.channel)
    assert (found.value, found.low, found.high) == (50.0, page.low, page.high)
    assert found.sentence == page.sentence
    entry = bench.store.timeline("INC-1")[-1]
    assert entry.text == f"The detectors found latency of gateway-1 unusual: {page.sentence}"
    assert bench.store.verify("INC-1") is None
    await bench.begin()
    await bench.end()
    assert len(bench.found) == 1, "what was told is told once"
    assert answers[0] == [("GET", f"{URL}/v1/series", anomaly_found.ASK_S)]


async def test_a_process_that_does_not_answer_is_read_from_what_it_keeps(bench, answers):
    answers[1].append("127.0.0.1:9 does not answer")
    save_kept(bench.kept, encode(seen().kept(), DIGEST))
    bench.fire(series="latency", item="gateway-1")
    await bench.begin()
    assert bench.found[0].sentence == seen().pages[0].sentence


async def test_what_cannot_be_read_is_a_line_and_the_end_makes_up_for_it(bench, answers):
    answers[1].append("127.0.0.1:9 does not answer")
    bench.kept.write_bytes(b"no state")
    bench.fire(series="latency", item="gateway-1")
    await bench.begin()
    assert len(answers[0]) == anomaly_found.TRIES
    (found,) = bench.found
    assert (found.sentence, found.trouble) == ("", "127.0.0.1:9 does not answer")
    assert "could not be read: 127.0.0.1:9 does not answer" in bench.store.timeline("INC-1")[-1].text
    await bench.end()
    assert len(bench.found) == 1, "the same trouble is told once"
    answers[1].clear()
    await bench.end()
    assert bench.found[-1].sentence == seen().pages[0].sentence


async def test_a_page_that_is_not_known_is_not_made_up(bench, answers):
    bench.fire(series="latency", item="gateway-2")
    await bench.begin()
    assert bench.found[0].trouble == "they know of no page of it at that time"


async def test_other_alerts_ask_the_detectors_nothing(bench, answers):
    bench.fire(name="GatewayDown", series="latency", item="gateway-1")
    bench.fire(fingerprint="g")
    await bench.begin()
    await bench.end()
    assert (bench.found, answers[0]) == ([], [])


async def test_a_series_that_joins_or_comes_again_is_told_then(bench, answers):
    bench.fire(series="latency", item="gateway-1")
    await bench.begin()
    bench.fire(fingerprint="g", series="flow")
    bench.fire(series="latency", item="gateway-1", starts_at=Instant(ALERT + 60 * MINUTE))
    await bench.begin()
    assert [(one.fingerprint, bool(one.trouble)) for one in bench.found] == [("f", False), ("f", True), ("g", True)]


async def test_entries_of_one_incident_are_bounded(bench, answers):
    for number in range(anomaly_found.FOUND_MAX + 20):
        bench.fire(fingerprint=f"f{number}", series="latency", item="gateway-1")
    await bench.begin()
    await bench.end()
    assert len(bench.found) == anomaly_found.FOUND_MAX


def page(at_s, item="a"):
    return Page(
        id=f"A-{at_s}", at=Instant(ALERT + at_s * SECOND), series="s", item=item, service="x", channel="novelty",
        value=1.0, low=0.0, high=1.0, sentence="",
    )  # fmt: skip


def test_of_several_pages_the_last_that_the_alert_can_speak_of_is_meant():
    pages = [page(-16 * 60), page(-300), page(-6), page(60), page(-5, item="b")]
    assert page_of(pages, "s", "a", ALERT) is pages[2]
    assert page_of(pages[:1], "s", "a", ALERT) is None
    assert page_of(pages[3:], "s", "a", ALERT) is None
    assert page_of(pages, "t", "a", ALERT) is None


def test_the_loop_tells_while_the_incident_is_open_and_holds_nothing_up(tmp_path, monkeypatch):
    asked = []

    def pages(self):
        asked.append(self)
        return ([page(0)] if len(asked) > 1 else []), ""

    async def at_once(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(anomaly_found.asyncio, "to_thread", at_once)
    monkeypatch.setattr(Finder, "_pages", pages)
    monkeypatch.setattr(anomaly_found, "SOONER", 10**18)
    monkeypatch.setattr(anomaly_found, "LATER", 10**18)
    anomaly = {"alertname": "SeriesAnomalous", "service": "gateway", "severity": "info", "level": "3", "team": "t",
               "series": "s", "item": "a"}  # fmt: skip

    answer = msgspec.structs.replace(GATEWAY, answers=("SeriesAnomalous",))

    async def main():
        world = World(3, tmp_path, library={"SeriesAnomalous": answer})
        try:
            await world.live(3)
            loop = world.life.loop
            finder = Finder(
                loop._p.store, url="", kept=tmp_path / "none", clock=world.clock, log=world.log, again_s=2.0
            )
            loop._p = dataclasses.replace(loop._p, found=finder)
            world.noise = [anomaly]
            await world.live(10)
            (one,) = world.store.incidents()
            assert one.state is not State.RESOLVED
            told = [entry for entry in world.store.timeline(one.id) if entry.kind is EntryKind.ANOMALY_FOUND]
            assert [found_of(entry).page for entry in told] == ["A-0"]
            assert world.store.verify(one.id) is None
        finally:
            await world.stop()

    run(main())
    assert len(asked) == 2, "it was asked again when the page was not there yet"


@pytest.mark.parametrize("on", [True, False])
def test_control_is_told_where_the_detectors_answer(tmp_path, on):
    settings = load_settings(state=tmp_path, ports="auto", anomaly=on)
    layout = Layout(tmp_path)
    layout.secret("webhook").parent.mkdir()
    layout.secret("webhook").write_text("w")
    ports = plan.choose_ports(settings)
    plan.write_configs(settings, layout, ports, generate_instruments(1, 1))
    assert load_config(layout.config("control-1")).anomaly.url == (f"http://127.0.0.1:{ports.anomaly}" if on else "")


async def test_incident_show_has_the_sentence_and_how_to_answer_it(bench, answers, capsys, tmp_path):
    layout = Layout(tmp_path)
    bench.fire(series="latency", item="gateway-1")
    bench.fire(fingerprint="g", series="flow")
    await bench.begin()
    verbs_causes.print_found(tuple(bench.store.timeline("INC-1")))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("found     latency of gateway-1: 50, expected 5 to ")
    assert second.strip() == (
        f"page {seen().pages[0].id}; right or not: tapewatch anomaly feedback {seen().pages[0].id} --true|--false"
    )
    assert third == "          flow: could not be read: they know of no page of it at that time"
    verbs_causes.print_found(())
    assert capsys.readouterr().out == ""
    entries = tuple(bench.store.timeline("INC-1"))
    verbs_incident._print_incident(bench.incident, verbs_incident.Told(entries), verbs_incident.Desk(layout))
    assert first in capsys.readouterr().out.splitlines()
