# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Whose trace is kept, across processes that know each a part: whole or not at all, and the same everywhere."""

import random
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.commands import Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Happened, Rejected, Traded
from exchange.flow import OrderFlow
from exchange.journal import encode_command, encode_events
from exchange.ports import RequestOutcome
from exchange.tracing import Answered, Committed, Handled, RestedTogether
from exchange.types import Instrument, Side
from kernel.time import MILLISECOND as MS
from kernel.time import seconds
from kernel.trace import order_trace_id
from monitor.adapters.spans import SAID_TOGETHER, SpanTracer
from monitor.adapters.verdict_files import Alone, VerdictFiles
from monitor.traces import Policy, Verdict, built

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))
SLOW_MS = 250
ID = f"{5:032x}"
ROLES = ("gateway-1", "engine-1", "market-data-1", "settlement-1")
ENGINE_SPANS = {"engine order", "engine queue", "engine match", "journal sync"}


class Kept:
    """Takes the place of a queue to a store."""

    def __init__(self):
        self.spans = []

    def offer(self, spans):
        self.spans.extend(spans)


class Room:
    """All that is said here is heard by all others; each has read so far."""

    def __init__(self):
        self.said = []

    def place(self, name):
        room, read = self, 0

        class Place:
            def say(self, verdicts):
                room.said.extend((name, verdict) for verdict in verdicts)

            def hear(self):
                nonlocal read
                news, read = room.said[read:], len(room.said)
                return [verdict for who, verdict in news if who != name]

        return Place()


class Plant:
    """Four processes, each told of its own part and of nothing else."""

    def __init__(self, share, places, **more):
        self.store, self.told = Kept(), Counter()
        policy = Policy(share, seconds(SLOW_MS / 1_000))
        self.tracers = {
            role: SpanTracer([self.store], policy, places(role), lambda what, count: self.told.update({what: count}),
                             **more)
            for role in ROLES
        }  # fmt: skip

    def judge(self):
        for tracer in self.tracers.values():
            tracer.judge()

    def traces(self):
        found = defaultdict(Counter)
        for span in self.store.spans:
            found[span.trace_id][span.name] += 1
        return found


class Day:
    """Orders in batches, with what is to come of each: which are slow, and where, and which have no answer."""

    def __init__(self, seed, orders, notable):
        self.draw = random.Random(seed)
        self.engine, self.flow = Engine(INSTRUMENTS), OrderFlow(seed, INSTRUMENTS, ("p", "q", "r"))
        self.orders, self.notable = orders, notable
        self.seq = 0
        self.expected, self.others = {}, {}

    def steps(self, plant):
        """Yield the tellings of the day, each a function; the four parts of a batch come in any order."""
        while self.seq < self.orders:
            yield from self.batch(plant)

    def batch(self, plant):
        size = self.draw.randint(1, 12)
        at = 1_000_000 * MS + self.seq * 10 * MS
        items = [Sequenced(self.seq + 1 + place, at, next(self.flow)) for place in range(size)]
        self.seq += size
        happened = []
        for item in items:
            events = self.engine.apply(item)
            self.flow.observe(events)
            happened.append(Happened(item.seq, at, events))
        durable = at + 4 * MS
        wheres = [self.draw.choice(("gateway", "error", "engine", "market", "settlement", "none"))
                  if self.draw.random() < self.notable else "" for _ in items]  # fmt: skip
        waited = [0.3 if where == "engine" else 0.002 for where in wheres]
        tracers = plant.tracers
        tellings = [lambda: tracers["engine-1"].committed(
            Committed(items, happened, waited, [0.000_01] * size, 0.003, durable,
                      [encode_command(item) for item in items], [encode_events(one) for one in happened]))]  # fmt: skip
        for item, result, where in zip(items, happened, wheres, strict=True):
            tellings.extend(self.order(tracers, item, result, where, durable))
        self.draw.shuffle(tellings)
        return tellings

    def order(self, tracers, item, result, where, durable):
        rejected = isinstance(result.events[-1], Rejected)
        traded = any(isinstance(event, Traded) for event in result.events)
        outcome = RequestOutcome.UNKNOWN if where == "error" else (
            RequestOutcome.REJECTED if rejected else RequestOutcome.ACCEPTED)  # fmt: skip
        took_s = 0.001 * SLOW_MS if where == "gateway" else 0.008
        seq = 0 if where == "error" else item.seq
        if outcome is RequestOutcome.ACCEPTED and type(item.command) is PlaceOrder and item.seq % 3:
            orders = [(item.command, seq, "", item.seq)]
            together = RestedTogether(orders, "r", took_s, durable + MS, traced=bool(item.seq % 5))
            yield lambda: tracers["gateway-1"].rested(together)
        else:
            yield lambda: tracers["gateway-1"].answered(
                Answered(seq, item.command, "", f"r-{item.seq}", outcome, 201, took_s, durable + MS)
            )
        late = {role: durable + (SLOW_MS if where == role else 1) * MS for role in ("market", "settlement")}
        yield lambda: tracers["market-data-1"].published(Handled([result], durable, late["market"]))
        if traded:
            yield lambda: tracers["settlement-1"].settled(Handled([result], durable, late["settlement"]))
        whole = {"gateway request", *ENGINE_SPANS}
        if not rejected:
            whole |= {"market-data publish"} | ({"settlement post"} if traded else set())
        seen = where in {"gateway", "error", "engine"} or rejected
        seen = seen or (where == "market") or (where == "settlement" and traded)
        trace_id = order_trace_id(item.command.account, item.command.client_id)
        (self.expected if seen else self.others)[trace_id] = whole


def run(plant, day, judged_after):
    for number, telling in enumerate(day.steps(plant)):
        telling()
        if number % judged_after == judged_after - 1:
            plant.judge()
    for _ in range(2):  # the last verdicts are said, then heard
        plant.judge()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.0, 0.3), st.integers(1, 60))
def test_every_error_reject_and_slow_order_is_kept_whole_and_no_other(seed, notable, judged_after):
    """Whoever saw it, however late the others hear of it, and whatever they were told meanwhile."""
    room = Room()
    plant, day = Plant(0.0, room.place), Day(seed, 120, notable)
    run(plant, day, judged_after)
    traces = plant.traces()
    assert {trace: set(names) for trace, names in traces.items()} == day.expected
    assert all(count == 1 for names in traces.values() for count in names.values()), "no span is sent twice"
    assert not plant.told["late"]


def test_of_the_others_the_share_is_kept_whole():
    """10,000 orders at 5 %: within five standard deviations of the binomial distribution, and each of them whole."""
    share, room = 0.05, Room()
    plant, day = Plant(share, room.place), Day(5, 10_000, 0.01)
    run(plant, day, 100)
    traces = {trace: set(names) for trace, names in plant.traces().items()}
    assert {trace: traces.pop(trace) for trace in day.expected} == day.expected
    assert traces == {trace: day.others[trace] for trace in traces}
    expected, deviation = share * len(day.others), (share * (1 - share) * len(day.others)) ** 0.5
    assert abs(len(traces) - expected) <= 5 * deviation


def order(number, at_ms=0, took_s=0.003):
    command = PlaceOrder("ann", f"c{number}", "AAA", Side.BUY, 1, Limit(1_000))
    return Answered(number, command, "", f"r-{number}", RequestOutcome.ACCEPTED, 201, took_s, at_ms * MS)


def test_memory_is_bounded_and_what_was_forgotten_is_counted():
    plant = Plant(0.0, lambda _: Alone(), capacity=100)
    gateway = plant.tracers["gateway-1"]
    for number in range(1, 1_001):
        gateway.answered(order(number, number * 10))
        assert gateway._answered.held <= 100
    gateway.judge()
    assert gateway._answered.held == sum(one.size for one in gateway._answered._last) > 30
    late = gateway._answered.judge([Verdict("ann", "c5", ID, 50 * MS)], 0)
    assert (late.spans, late.late) == ([], 1)
    there = gateway._answered.judge([Verdict("ann", "c990", ID, 9_900 * MS)], 0)
    assert ([span.attributes["exchange.client_id"] for span in there.spans], there.late) == (["c990"], 0)


def test_what_is_kept_is_built_with_others_and_at_the_latest_when_many_wait():
    plant = Plant(1.0, lambda _: Alone())
    gateway = plant.tracers["gateway-1"]
    orders = [(order(number).command, number, "", number) for number in range(1, 300)]
    for first in range(255):
        gateway.rested(RestedTogether(orders[first : first + 1], "r", 0.003, MS, traced=False))
    assert plant.store.spans == []
    gateway.rested(RestedTogether(orders[255:], "r", 0.003, MS, traced=False))
    assert len(plant.store.spans) == len(orders)
    gateway.judge()
    assert len(plant.store.spans) == len(orders), "none is built twice"


def test_more_slow_orders_than_can_be_told_are_counted():
    plant = Plant(0.0, lambda _: Alone())
    for number in range(SAID_TOGETHER + 7):
        plant.tracers["gateway-1"].answered(order(number, 300, 0.3))
    plant.judge()
    assert plant.told["late"] == 7


def test_a_verdict_that_nobody_needs_any_more_is_let_go():
    plant = Plant(0.0, lambda _: Alone())
    memory = plant.tracers["gateway-1"]._answered
    memory.judge([Verdict("ann", "c1", ID, 0)], 0)
    memory.judge([], seconds(119))
    assert [span.name for span in built(memory.told([order(1)]))] == ["gateway request"]
    memory.judge([], seconds(121))
    assert list(built(memory.told([order(1)]))) == []


def test_processes_hear_each_other_through_files_and_not_themselves(tmp_path):
    one, two = VerdictFiles(tmp_path / "v", "gateway-1"), VerdictFiles(tmp_path / "v", "gateway-10")
    said = [Verdict("ann", "a\n1", ID, 5), Verdict("bob", "b", ID, 6)]
    assert two.hear() == []
    one.say(said[:1])
    assert (two.hear(), one.hear()) == (said[:1], [])
    one.say(said[1:])
    assert (two.hear(), two.hear()) == (said[1:], [])
    two.say(said)
    assert one.hear() == said


def test_a_line_that_was_cut_costs_itself_only(tmp_path):
    one, two = VerdictFiles(tmp_path, "engine-1"), VerdictFiles(tmp_path, "gateway-1")
    one.say([Verdict("ann", "a", ID, 5)])
    (file,) = tmp_path.iterdir()
    with file.open("ab") as out:
        out.write(b'{"account":"x"\n{"account":"bob","client')
    assert two.hear() == [Verdict("ann", "a", ID, 5)]
    with file.open("ab") as out:
        out.write(b'_id":"b","trace_id":"' + ID.encode() + b'","since":6}\n')
    assert two.hear() == [Verdict("bob", "b", ID, 6)]


def test_files_stay_small_and_are_those_of_this_run(tmp_path):
    reader = VerdictFiles(tmp_path, "engine-1")
    VerdictFiles(tmp_path, "gateway-1").say([Verdict("old", "old", ID, 0)])
    writer = VerdictFiles(tmp_path, "gateway-1", max_bytes=1_000)
    heard = []
    for number in range(300):
        writer.say([Verdict("ann", f"c{number}", ID, number)])
        heard.extend(reader.hear())
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2_300
    assert [verdict.client_id for verdict in heard] == [f"c{number}" for number in range(300)]


def test_no_place_for_verdicts_costs_nobody_anything(tmp_path):
    (tmp_path / "file").touch()
    alone = VerdictFiles(tmp_path / "file" / "v", "engine-1")
    alone.say([Verdict("ann", "a", ID, 5)])
    assert alone.hear() == []
