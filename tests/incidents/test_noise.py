# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""What a rule was worth, held to a count second by second."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.noise import Advice, Episode, Fate, RuleFacts, episodes, fates, worth
from incidents.timeline import Entry, EntryKind
from kernel.time import SECOND
from monitor.ports import Curve

S = SECOND
OWNED = RuleFacts(alert="A", severity="warning", level="2", team="t", service="s")


def curve(seconds, **labels):
    names = {"__name__": "ALERTS", "alertstate": "firing", "alertname": "A"} | labels
    return Curve(names, [(second * S, 1.0) for second in seconds])


def entry(kind, at, source="control", **data):
    return Entry(1, at * S, kind, source, "", data, "", "")


def firing(at, alert="A", **labels):
    return entry(EntryKind.ALERT_FIRING, at, alertname=alert, labels={"alertname": alert} | labels)


@settings(max_examples=200)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_episodes_are_the_stretches_without_a_gap(one, two):
    found = episodes([curve(sorted(one), replica="x"), curve(sorted(two), replica="y")], S, 60 * S)
    seen = {"x": set(), "y": set()}
    for episode in found:
        stretch = set(range(episode.start // S, episode.end // S + 1))
        assert not stretch & seen[episode.labels["replica"]]
        seen[episode.labels["replica"]] |= stretch
        assert episode.open == (episode.end == 60 * S)
        assert not {episode.start // S - 1, episode.end // S + 1} & (one if episode.labels["replica"] == "x" else two)
    assert seen == {"x": one, "y": two}
    rows = worth([OWNED], found, [Fate.NOISE] * len(found), 0, 60 * S)
    together = sorted(one | two)
    naive = sum(1 for a, b in pairwise(together) if b - a == 1 and any({a, b} <= each for each in (one, two)))
    assert rows[0].firing_s == naive, "seconds in which at least one stands, counted once"


def test_a_missed_sample_is_a_gap_and_a_late_one_is_not():
    late = Curve({"alertname": "A"}, [(0, 1.0), (15 * S, 1.0), (30 * S + 5, 1.0), (60 * S, 1.0)])
    assert [(one.start, one.end) for one in episodes([late], 15 * S, 90 * S)] == [(0, 30 * S + 5), (60 * S, 60 * S)]


def test_an_episode_is_worth_what_its_incident_saw():
    found = episodes([curve(range(10, 20), replica="x")], S, 100 * S)
    over = entry(EntryKind.STATE_CHANGED, 30, to="resolved")
    assert fates(found, {}) == [Fate.NOT_FOLLOWED]
    assert fates(found, {"I": [firing(11, replica="x")]}) == [Fate.OPEN], "nothing is decided while it goes on"
    seen = [firing(11, replica="x"), over]
    assert fates(found, {"I": seen}) == [Fate.NOISE]
    assert fates(found, {"I": seen, "J": [firing(11, replica="x")]}) == [Fate.OPEN], "one of its two goes on"
    again = entry(EntryKind.STATE_CHANGED, 40, to="open")
    assert fates(found, {"I": [*seen, again]}) == [Fate.OPEN]
    did = {"ok": True, "undo": False}
    for what in (
        entry(EntryKind.ACTION_DONE, 12, **did),
        entry(EntryKind.STATE_CHANGED, 12, source="person:ann", to="acknowledged"),
        entry(EntryKind.CONSENT, 12, granted=True),
    ):
        assert fates(found, {"I": [*seen, what]}) == [Fate.ACTED]
    for what in (
        entry(EntryKind.ACTION_DONE, 12, ok=False),
        entry(EntryKind.ACTION_DONE, 12, ok=True, undo=True),
        entry(EntryKind.RUN_ENDED, 12, outcome="not_applicable"),
    ):
        assert fates(found, {"I": [*seen, what]}) == [Fate.NOISE]
    assert fates(found, {"I": [firing(11, replica="y")]}) == [Fate.NOT_FOLLOWED], "another replica's"
    assert fates(found, {"I": [firing(500, replica="x")]}) == [Fate.NOT_FOLLOWED], "of another time"


def judged(found, came_of, rule=OWNED, window=1_000):
    return worth([rule], found, came_of, 0, window * S)[0]


def test_what_is_wrong_with_a_rule_is_named():
    def spell(start, end, **labels):
        return Episode(alert="A", labels=labels, start=start * S, end=end * S)

    assert judged([], []).advice == (Advice.NEVER,)
    assert judged([spell(0, 960)], [Fate.ACTED]).advice == (Advice.ALWAYS,)
    assert judged([spell(0, 940)], [Fate.ACTED]).advice == ()
    apart = [spell(0, 60), spell(400, 460), spell(800, 860)]
    assert judged(apart, [Fate.NOISE] * 3).advice == (Advice.NOISY,)
    assert judged(apart, [Fate.NOT_FOLLOWED] * 3).advice == (), "what nobody followed is not known to be noise"
    assert judged(apart, [Fate.ACTED, Fate.ACTED, Fate.NOISE]).advice == ()
    often = [spell(n * 100, n * 100 + 50) for n in range(5)]
    assert judged(often, [Fate.ACTED] * 5).advice == (Advice.FLAPPING,)
    others = [spell(n * 100, n * 100 + 50, replica=str(n)) for n in range(5)]
    assert judged(others, [Fate.ACTED] * 5).advice == (), "five replicas once each do not flap"
    brief = [spell(n * 400, n * 400 + 2) for n in range(3)]
    assert Advice.BRIEF in judged(brief, [Fate.NOISE] * 3).advice
    assert judged([], [], rule=RuleFacts(alert="A")).advice == (Advice.UNOWNED, Advice.NEVER)
    watchdog = Episode(alert="Watchdog", labels={}, start=0, end=1_000 * S)
    assert judged([watchdog], [Fate.NOISE], rule=RuleFacts(alert="Watchdog", team="t")).advice == ()


def test_an_alert_without_a_rule_is_told_too_and_the_worst_comes_first():
    found = [Episode(alert="Gone", labels={"team": "t"}, start=0, end=S)]
    rows = worth([OWNED, RuleFacts(alert="B")], found, [Fate.NOT_FOLLOWED], 0, 1_000 * S)
    assert [row.rule.alert for row in rows] == ["B", "A", "Gone"]
    assert rows[2].rule.where == "no rule of this name"
    assert all(len(row.words) == len(row.advice) for row in rows)
