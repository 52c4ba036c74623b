"""What an incident teaches and asks for: said only where the timeline holds the evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from incidents.plot import figure
from incidents.report import FollowUp, Sentence
from incidents.story import Story, as_sentence, of_cause, say
from incidents.timeline import EntryKind
from incidents.words import clean, spell
from kernel.time import SECOND, Duration

DETECTION_GOAL: Final = Duration(10 * SECOND)
"""Fault to alert: two missed scrapes, a rule's `for` and a notification fit easily; longer is a follow-up."""
MANY_ALERTS: Final = 24
"""More firings than this are a storm."""


def went_well(story: Story) -> Iterator[Sentence]:
    """Tell what worked."""
    action, proof = story.first_action(), story.proof()
    if story.fault is not None and story.alerts and 0 <= story.alerts[0].at - story.fault[0] <= DETECTION_GOAL:
        found = spell(story.alerts[0].at - story.fault[0])
        yield say(f"The fault was detected within {found}.", story.fault[1], story.alerts[0])
    if action is not None and proof is not None and proof.at >= action.at and not story.relapses():
        yield say(f"The remedy was proved {spell(proof.at - action.at)} after it was done.", action, proof)
    for entry in story.all(EntryKind.ACTION_DONE, undo=True, ok=True)[:1]:
        yield say("A remedy that did not help was not left in place.", entry)
    for entry in story.all(EntryKind.RUN_ENDED, outcome="refused", reason="no_evidence")[:1]:
        yield say("Nothing was touched while monitoring gave no data.", entry)
    runs = story.all(EntryKind.RUN_STARTED)
    if len(story.alerts) > MANY_ALERTS and len(runs) == 1:
        yield say(
            f"Alerts were received {figure(len(story.alerts))} times and led to a single run.", *story.alerts, *runs
        )


def went_poorly(story: Story) -> Iterator[Sentence]:
    """Tell what did not work."""
    if story.fault is not None and story.alerts and story.alerts[0].at - story.fault[0] > DETECTION_GOAL:
        took = spell(story.alerts[0].at - story.fault[0])
        yield say(f"Detection took {took}; the goal is {spell(DETECTION_GOAL)}.", story.fault[1], story.alerts[0])
    for entry in story.all(EntryKind.RUN_ENDED):
        book = clean(entry.data.get("runbook"), 80)
        if entry.data.get("outcome") in {"not_proven", "undone"}:
            yield say(f"The runbook {book} did not help this time.", entry)
        elif entry.data.get("outcome") == "failed":
            yield say(f"An action of the runbook {book} failed.", entry)
        elif entry.data.get("reason") == "no_evidence":
            yield say(f"The runbook {book} could not act because monitoring was blind.", entry)
    if story.relapses():
        yield say(f"Times it came back after a proof: {figure(len(story.relapses()))}.", *story.relapses())


def follow_ups(story: Story) -> Iterator[FollowUp]:  # noqa: C901 - one condition per kind of follow-up reads best in a row
    """Tell what is to be done, and by whom."""
    team = clean(of_cause(story, story.cause(), "team"), 80)
    if story.handed is not None and story.handed.data.get("what_to_do"):
        yield FollowUp(
            say(as_sentence(clean(story.handed.data["what_to_do"], 500)), story.handed), "the person on call"
        )
    for entry in story.all(EntryKind.RUN_ENDED):
        book, outcome = clean(entry.data.get("runbook"), 80), entry.data.get("outcome")
        if outcome in {"not_proven", "undone"}:
            text = f"Decide whether the runbook {book} is the right answer to this alert, and what would have helped."
            yield FollowUp(say(text, entry), team)
        elif outcome == "failed":
            yield FollowUp(say(f"Find out why an action of the runbook {book} failed.", entry), team)
        elif outcome == "refused" and entry.data.get("reason") == "no_evidence":
            yield FollowUp(say(f"Check why monitoring had no data for the runbook {book}.", entry), "monitoring")
    for entry in story.all(EntryKind.RUN_DECLINED):
        if entry.data.get("reason") in {"ineffective", "too_many_runs"}:
            text = f"Look for the lasting cause: the runbook {clean(entry.data.get('runbook'), 80)} reached its limit."
            yield FollowUp(say(text, entry), team)
    yield from _halted(story)
    if story.fault is not None and story.alerts and story.alerts[0].at - story.fault[0] > DETECTION_GOAL:
        alert = story.alerts[0]
        text = f"Find out why detection by {clean(alert.data.get('alertname'), 80)} took longer than {spell(DETECTION_GOAL)}."  # noqa: E501 - a sentence or a table row stays whole
        yield FollowUp(say(text, story.fault[1], alert), "monitoring")
    if story.relapses():
        yield FollowUp(say("Find out why it came back; the remedy may treat a symptom.", *story.relapses()), team)
    resolved = story.reached("resolved")
    if resolved is not None and story.first_action() is None:
        yield FollowUp(say("It ended without a proven remedy: find out what ended it.", story.opened, resolved), team)


def _halted(story: Story) -> Iterator[FollowUp]:
    """Name every halt that no later action lifted."""
    for entry in story.actions:
        action = entry.data.get("action")
        if (
            not entry.data.get("ok")
            or not isinstance(action, dict)
            or action.get("type") not in {"halt_symbol", "halt_market"}
        ):
            continue
        lifted = str(action["type"]).replace("halt", "resume")
        if not any(
            later.n > entry.n
            and later.data.get("ok")
            and isinstance(back := later.data.get("action"), dict)
            and back.get("type") == lifted
            and back.get("symbol") == action.get("symbol")
            for later in story.actions
        ):
            what = clean(action.get("symbol") or "the market", 80)
            yield FollowUp(
                say(f"Trading in {what} is halted: a person checks it and resumes.", entry), "trading operations"
            )
