"""What an incident leaves for its report: figures that were read, and never a figure that was not."""

import math

import msgspec
import pytest

from control.evidence import LATENCY, Archivist
from exchange.recording import RecordingLog
from incidents.adapters.memory_store import MemoryStore
from incidents.timeline import Draft, EntryKind
from kernel.time import Instant, seconds
from monitor.adapters.fake_metrics import FakeMetrics
from monitor.ports import Unknown
from tests.sim.virtual import EPOCH, run
from tests.sim.world import KEY, World, _Store

PROOF = 'min(up{replica="gateway-1"})'


class Still:
    """A clock that stands."""

    def now(self):
        return Instant(EPOCH + seconds(60))


class Bench:
    def __init__(self, folder):
        self.store, self.metrics, self.folder = MemoryStore(KEY), FakeMetrics(Still()), folder
        world = World(1, folder)
        world.life.dead = False
        world.store = self.store
        self.log = RecordingLog()
        self.archivist = Archivist(
            _Store(self.store, world, world.life),
            self.metrics,
            folder / "reports",
            folder / "faults",
            Still(),
            self.log,
        )
        data = {"incident": "INC-1", "title": "t", "level": 2, "service": "gateway", "team": "t", "key": "gateway"}
        labels = {"alertname": "GatewayDown", "service": "gateway"}
        alert = {
            "fingerprint": "f",
            "alertname": "GatewayDown",
            "labels": labels,
            "annotations": {},
            "starts_at": EPOCH,
        }
        read = {"run": "r", "purpose": "proof", "name": "it serves", "query": PROOF}
        self.put(EntryKind.OPENED, data)
        self.put(EntryKind.ALERT_FIRING, alert)
        self.put(EntryKind.EVIDENCE_READ, read)

    def put(self, kind, data):
        self.store.append("INC-1", [Draft(EPOCH, kind, "control", "t", data)])

    def gather(self):
        incident = self.store.incident("INC-1")
        assert incident is not None
        return run(self.archivist.gather(incident, Still().now()))

    def impact(self):
        return next(draft.data for draft in self.gather() if draft.kind is EntryKind.IMPACT)

    def measure(self, *, refused=None, slow=None, mean=None):
        """Let the load generator's metrics say so over the incident's 60 seconds."""
        window, end = 61, Still().now()
        queries = {
            f'sum(increase(exchange_client_orders_total{{outcome="refused"}}[{window}s]))': refused,
            f"sum(increase(exchange_client_latency_seconds_count[{window}s])) - "
            f'sum(increase(exchange_client_latency_seconds_bucket{{le="0.5"}}[{window}s]))': slow,
            f"sum(increase(exchange_client_notional_ticks_total[{window}s])) / "
            f"sum(increase(exchange_client_latency_seconds_count[{window}s]))": mean,
        }
        for query, value in queries.items():
            if value is not None:
                self.metrics.put(query, value, at=end)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_the_impact_is_what_clients_saw(bench):
    bench.measure(refused=7.0, slow=3.0, mean=100.0)
    assert bench.impact() == {
        "orders": 10, "notional_ticks": 1_000, "minutes": 1.0, "source": bench.impact()["source"],
    }  # fmt: skip


@pytest.mark.parametrize("trouble", [None, Unknown.UNREACHABLE, Unknown.REFUSED])
def test_what_cannot_be_read_is_not_known_and_never_nothing(bench, trouble):
    bench.metrics.fail(trouble)
    impact = bench.impact()
    assert impact["orders"] is None
    assert impact["notional_ticks"] is None
    assert impact["source"].startswith("nothing:")


def test_a_figure_that_is_no_number_is_not_known(bench):
    bench.measure(refused=math.nan, slow=math.nan, mean=math.nan)
    assert bench.impact()["orders"] is None


def test_without_the_mean_the_notional_is_not_known(bench):
    bench.measure(refused=7.0, slow=3.0)
    assert (bench.impact()["orders"], bench.impact()["notional_ticks"]) == (10, None)


def test_each_proof_and_the_latency_are_kept_as_curves(bench):
    for query in (PROOF, LATENCY):
        bench.metrics.put(query, 1.0, at=EPOCH)
    curves = [draft.data for draft in bench.gather() if draft.kind is EntryKind.CURVE]
    assert [curve["query"] for curve in curves] == [PROOF, LATENCY]
    assert curves[0]["points"] == [[EPOCH, 1.0]]
    assert curves[0]["marks"]["alert"] == EPOCH


def test_a_curve_without_data_is_left_out(bench):
    assert not [draft for draft in bench.gather() if draft.kind is EntryKind.CURVE]


@pytest.mark.parametrize(("ago_s", "marked"), [(1, True), (29, True), (31, False), (-1, False)])
def test_only_a_fault_from_shortly_before_is_marked(bench, ago_s, marked):
    at = EPOCH - seconds(ago_s)
    line = msgspec.json.encode({"name": "gateway-hang", "at": at, "more": 1})
    (bench.folder / "faults").write_bytes(line + b"\n")
    bench.metrics.put(PROOF, 1.0, at=EPOCH)
    marks = next(draft.data["marks"] for draft in bench.gather() if draft.kind is EntryKind.CURVE)
    assert ("fault" in marks) is marked


def test_a_torn_record_of_faults_is_no_reason_to_stop(bench):
    (bench.folder / "faults").write_bytes(b'{"name":')
    assert bench.impact()["orders"] is None


def test_a_report_is_written_and_one_that_cannot_be_is_told(bench):
    written = run(bench.archivist.report("INC-1"))
    assert written is not None
    assert all(path.read_text() for path in written)
    assert run(bench.archivist.report("INC-9")) is None
