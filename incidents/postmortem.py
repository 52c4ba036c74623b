"""The post-mortem: an incident's timeline told for people. Pure; every sentence names the entries that back it.

Nothing is said that the timeline does not hold: figures and curves of the exchange are entries too (IMPACT and CURVE).
A fact in a sentence stands in the data of an entry it cites, or is computed from cited entries by `clock`, `day`,
`spell` (a difference of two instants), `figure`, `changes`, `action_words`, or by counting the cited entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from incidents.found import found_of, told_of
from incidents.incident import Incident
from incidents.lessons import follow_ups, went_poorly, went_well
from incidents.plot import figure
from incidents.ranked import ranked_of
from incidents.report import Attempt, Check, Figure, Report, Sentence, Suspicion
from incidents.story import Story, as_sentence, of_cause, say
from incidents.tables import links, plots, timeline
from incidents.timeline import Entry, EntryKind
from incidents.words import (
    OUTCOMES,
    REASONS,
    STATES,
    UNKNOWNS,
    action_words,
    changes,
    clean,
    clock,
    day,
    instant_of,
    label,
    names,
    number_of,
    shown,
    spell,
)
from kernel.time import Instant

FOUND_TOLD: Final = 8
"""Series that detectors found, told one by one."""


def build_report(incident: Incident, entries: Sequence[Entry], now: Instant, *, tamper: str | None = None) -> Report:
    """Tell an incident from its timeline.

    Args:
        incident: whose id the report bears; everything else is read from the entries.
        entries: the whole timeline, at least the entry that opens it.
        now: when the report is made.
        tamper: what is wrong with the chain of entries; it is shown above everything.

    Returns:
        The report. Foreign texts in it are cleaned to single lines but not escaped: renderers escape.
    """
    assert entries, f"{incident.id} has no timeline: a report is made from its entries"
    story = Story(entries)
    status, tone = _status(story)
    level = story.one(EntryKind.LEVEL_CHANGED, last=True)
    cause = story.cause()
    poorly = tuple(went_poorly(story))
    return Report(
        id=clean(incident.id, 80),
        title=clean(_title(story), 140),
        level=shown(level.data.get("to") if level else story.opened.data.get("level", "?")),
        service=clean(of_cause(story, cause, "service"), 80),
        team=clean(of_cause(story, cause, "team"), 80),
        status=status,
        tone=tone,
        opened=f"{day(story.opened.at)} {clock(story.opened.at)} UTC",
        made=f"{day(now)} {clock(now)} UTC",
        entries=len(entries),
        tamper=clean(tamper, 500) if tamper is not None else None,
        summary=tuple(_summary(story)),
        impact=tuple(_impact(story)),
        impact_notes=tuple(_impact_notes(story)),
        timings=tuple(_timings(story)),
        causes=tuple(_causes(story)),
        moved=tuple(_moved(story)),
        suspicions=tuple(_suspicions(story)),
        tried=tuple(_attempt(story, run) for run in story.all(EntryKind.RUN_STARTED)),
        refused=tuple(_refused(story)),
        undone=tuple(_undone(story)),
        plots=tuple(plots(story)),
        went_well=tuple(went_well(story)),
        went_poorly=poorly,
        follow_ups=tuple(follow_ups(story)),
        links=tuple(links(story)),
        timeline=tuple(timeline(story)),
    )


def _title(story: Story) -> object:
    changed = story.one(EntryKind.CAUSE_CHANGED, last=True)
    return (changed.data.get("title") if changed else None) or story.opened.data.get("title") or story.opened.text


def _status(story: Story) -> tuple[str, str]:
    state = clean(story.state.data.get("to") if story.state else "open", 40)
    word = STATES.get(state, state)
    if state == "resolved":
        return word, "good"
    if story.handed:
        return f"{word}, with a person", "bad"
    return word, "good" if state == "mitigated" else "warn"


# --- summary, impact, timings ---------------------------------------------------------------------------------------


def _summary(story: Story) -> Iterator[Sentence]:
    opened, cause = story.opened, story.cause()
    level = shown(opened.data.get("level", "?"))
    yield say(
        f"At {clock(opened.at)} UTC on {day(opened.at)} an incident of level {level} was opened for the service "
        f"{clean(opened.data.get('service', 'unknown'), 80)}: {as_sentence(clean(opened.data.get('title') or opened.text, 140))}",  # noqa: E501 - a sentence or a table row stays whole
        opened,
    )
    if cause is not None and len(story.alerts) > 1:
        fired = len(story.alerts)
        yield say(f"Alerts were received {figure(fired)} times; they were treated as one incident.", *story.alerts)
    yield from _summary_of_actions(story)
    yield from _summary_of_impact(story)
    yield _state_now(story)


def _summary_of_actions(story: Story) -> Iterator[Sentence]:
    idle: dict[str, list[Entry]] = {}
    for run in story.all(EntryKind.RUN_STARTED):
        book = clean(run.data.get("runbook"), 80)
        ended = story.one(EntryKind.RUN_ENDED, run=run.data.get("run"))
        done = [entry for entry in story.actions if entry.data.get("run") == run.data.get("run")]
        acted = [entry for entry in done if entry.data.get("ok") and not entry.data.get("undo")]
        what = names(action_words(entry.data.get("action")) for entry in acted)
        if ended and not acted and ended.data.get("outcome") == "not_applicable":
            idle.setdefault(book, []).append(ended)
            continue
        how_many = "an action" if len(acted) == 1 else f"{len(acted)} actions"
        did = f"carried out {how_many} ({what})" if acted else "carried out no action"
        outcome = (
            OUTCOMES.get(str(ended.data.get("outcome")), label(str(ended.data.get("outcome"))))
            if ended
            else "it still runs"
        )
        yield say(f"The runbook {book} {did}: {outcome}.", run, *acted, ended)
    for book, ends in idle.items():
        times = "" if len(ends) == 1 else f", tried {len(ends)} times,"
        yield say(f"The runbook {book}{times} {OUTCOMES['not_applicable'].replace('it did', 'did', 1)}.", *ends)
    if not story.actions and not story.all(EntryKind.RUN_STARTED):
        yield say("No automatic action was taken.", story.first, story.last)


def _summary_of_impact(story: Story) -> Iterator[Sentence]:
    entry = story.one(EntryKind.IMPACT, last=True)
    if entry is None:
        return
    orders, minutes = number_of(entry.data.get("orders")), number_of(entry.data.get("minutes"))
    if orders is not None and minutes is not None:
        whom = "No orders were" if orders == 0 else f"{figure(orders)} {'order was' if orders == 1 else 'orders were'}"
        yield say(f"{whom} affected, over {figure(minutes)} minutes.", entry)


def _state_now(story: Story) -> Sentence:
    resolved = story.reached("resolved")
    if resolved is not None and story.state is not None and story.state.data.get("to") == "resolved":
        return say(
            f"It was resolved {spell(resolved.at - story.opened.at)} after it was opened.", story.opened, resolved
        )
    if story.handed is not None:
        why = as_sentence(clean(story.handed.data.get("reason")))
        return say(f"It is not resolved; it was handed over to a person: {why}", story.handed, story.last)
    if story.state is not None and story.state.data.get("to") == "mitigated":
        return say("Its effect is over, and it waits for its alerts to stay quiet.", story.state, story.last)
    return say("It still goes on.", story.opened, story.state, story.last)


def _impact(story: Story) -> Iterator[Figure]:
    entry = story.one(EntryKind.IMPACT, last=True)
    if entry is None:
        return
    for key, name in (
        ("orders", "Orders affected"),
        ("notional_ticks", "Notional, in ticks times lots"),
        ("minutes", "Minutes"),
    ):
        value = number_of(entry.data.get(key))
        yield Figure(name, "not known" if value is None else figure(value), (entry.n,))


def _impact_notes(story: Story) -> Iterator[Sentence]:
    entry = story.one(EntryKind.IMPACT, last=True)
    if entry is None:
        yield say("The timeline holds no figures of the exchange, so the impact is not known.", story.first, story.last)
        return
    if entry.data.get("source"):
        yield say(f"The figures come from: {as_sentence(clean(entry.data.get('source')))}", entry)


def _timings(story: Story) -> Iterator[Figure]:
    """Times to detect, acknowledge, mitigate and resolve, and from the fault where it is known."""

    def span(name: str, start: tuple[int, Entry] | None, end: tuple[int, Entry] | None) -> Iterator[Figure]:
        if start is not None and end is not None and end[0] >= start[0]:
            yield Figure(name, spell(end[0] - start[0]), tuple(sorted({start[1].n, end[1].n})))

    def at(entry: Entry | None) -> tuple[int, Entry] | None:
        return None if entry is None else (entry.at, entry)

    opened, alert = at(story.opened), next(iter(story.alerts), None)
    action, proof, resolved = at(story.first_action()), at(story.reached("mitigated")), at(story.reached("resolved"))
    fired = None if alert is None else instant_of(alert.data.get("starts_at"))
    yield from span("Time to detect (fault to alert received)", story.fault, at(alert))
    if alert is not None and fired is not None:
        yield from span("Alert firing to alert received", (fired, alert), at(alert))
    yield from span("Time to acknowledge (opened to acknowledged)", opened, at(story.reached("acknowledged")))
    yield from span("Incident opened to first action", opened, action)
    yield from span("First action to proof", action, proof)
    yield from span("Time to mitigate (opened to proof)", opened, proof)
    yield from span("Fault to proof", story.fault, proof)
    yield from span("Time to resolve (opened to resolved)", opened, resolved)
    yield from span("Fault to resolved", story.fault, resolved)


# --- trigger and contributing factors -------------------------------------------------------------------------------


def _causes(story: Story) -> Iterator[Sentence]:
    if story.fault is not None:
        at, curve = story.fault
        yield say(f"The fault began at {clock(at)} UTC.", curve)
    cause = story.cause()
    if cause is not None:
        where = _where(cause)
        yield say(
            f"Trigger: the alert {clean(cause.data.get('alertname'), 80)}{where}, received at {clock(cause.at)} UTC.",
            cause,
        )
        annotations = cause.data.get("annotations")
        if isinstance(annotations, dict) and annotations.get("summary"):
            yield say(f"The alert says: “{clean(annotations['summary'])}”.", cause)
    yield from _found(story)
    for changed in story.all(EntryKind.CAUSE_CHANGED):
        yield say(
            f"The cause was taken to be {clean(changed.data.get('alertname'), 80)}: {as_sentence(clean(changed.data.get('why')))}",  # noqa: E501 - a sentence or a table row stays whole
            changed,
        )
    yield from _other_alerts(story, cause)
    for entry in story.all(EntryKind.EVIDENCE_READ, purpose="guard"):
        if entry.data.get("unknown"):
            why = UNKNOWNS.get(str(entry.data["unknown"]), label(str(entry.data["unknown"])))
            yield say(f"The guard “{clean(entry.data.get('name'), 80)}” had no answer: {why}.", entry)
    for entry in story.relapses():
        yield say(f"At {clock(entry.at)} UTC it came back after it had been mended.", entry)


def _found(story: Story) -> Iterator[Sentence]:
    """Tell what the detectors found, each series in their own words."""
    last = {(found.fingerprint, found.starts_at): (entry, found)
            for entry in story.all(EntryKind.ANOMALY_FOUND) for found in (found_of(entry),)}  # fmt: skip
    told = list(last.values())
    for entry, found in told[:FOUND_TOLD]:
        yield say(as_sentence(told_of(found)), entry)
    if len(told) > FOUND_TOLD:
        yield say(f"They were asked about {figure(len(told))} alerts in all.", *(entry for entry, _ in told))


def _moved(story: Story) -> Iterator[Sentence]:
    """Tell the last ranking of causes as a whole, and what the one before it said when that was something else."""
    entries = story.all(EntryKind.CAUSES_RANKED)
    told = [(entry, ranked_of(entry)) for entry in entries]
    failed = [(entry, ranked) for entry, ranked in told if ranked.trouble]
    made = [(entry, ranked) for entry, ranked in told if not ranked.trouble]
    if made:
        entry, ranked = made[-1]
        yield say(as_sentence(ranked.sentence), entry)
        yield say(f"What was looked at: {as_sentence(ranked.basis)}", entry)
        for earlier, before in made[:-1][-1:]:
            yield say(f"At {clock(earlier.at)} UTC it had said: {as_sentence(before.sentence)}", earlier)
    elif failed:
        entry, ranked = failed[-1]
        yield say(f"It could not be told: {as_sentence(ranked.trouble)}", entry)


def _suspicions(story: Story) -> Iterator[Suspicion]:
    made = [entry for entry in story.all(EntryKind.CAUSES_RANKED) if not ranked_of(entry).trouble]
    for entry in made[-1:]:
        for one in ranked_of(entry).hypotheses:
            yield Suspicion(
                name=one.service or "outside of what is watched",
                points=f"{shown(one.score)} points",
                sentence=say(as_sentence(one.sentence), entry),
                speaks_for=tuple(say(text, entry) for text in one.speaks_for),
                speaks_against=tuple(say(text, entry) for text in one.speaks_against),
            )


def _where(alert: Entry) -> str:
    labels = alert.data.get("labels")
    held = labels if isinstance(labels, dict) else {}
    told = [f"{key} {clean(held[key], 80)}" for key in ("service", "replica", "symbol") if held.get(key)]
    return f" ({', '.join(told)})" if told else ""


def _other_alerts(story: Story, cause: Entry | None) -> Iterator[Sentence]:
    if cause is None:
        return
    others = [entry for entry in story.alerts if entry.data.get("fingerprint") != cause.data.get("fingerprint")]
    if not others:
        return
    counts = Counter(clean(entry.data.get("alertname"), 80) for entry in others).most_common(5)
    told = names(f"{name} ({figure(count)})" for name, count in counts)
    more = len({clean(entry.data.get("alertname"), 80) for entry in others}) - len(counts)
    and_more = " and others of other names" if more else ""
    yield say(f"Other alerts of the same incident: {told}{and_more}.", *others)


# --- what was tried -------------------------------------------------------------------------------------------------


def _attempt(story: Story, run: Entry) -> Attempt:
    mine = [entry for entry in story.entries if run.data.get("run") and entry.data.get("run") == run.data.get("run")]
    ended = next((entry for entry in mine if entry.kind is EntryKind.RUN_ENDED), None)
    readings = [entry for entry in mine if entry.kind is EntryKind.EVIDENCE_READ]
    sentences = [
        say(f"Started at {clock(run.at)} UTC for {clean(_target(run), 120)}.", run),
        *(_guards(readings)),
        *(sentence for entry in mine for sentence in _told(entry, mine)),
        *(_proofs(readings, mine)),
        *(_platform(mine)),
    ]
    if ended is not None:
        outcome = OUTCOMES.get(str(ended.data.get("outcome")), label(str(ended.data.get("outcome"))))
        sentences.append(say(f"The run ended after {spell(ended.at - run.at)}: {outcome}.", run, ended))
    else:
        sentences.append(say("The run has not ended.", run, story.last))
    return Attempt(
        runbook=clean(run.data.get("runbook"), 80),
        title=clean(run.data.get("title"), 140),
        outcome=label(str(ended.data.get("outcome"))) if ended else "running",
        sentences=tuple(sentences),
        checks=tuple(_checks(readings)),
    )


def _target(run: Entry) -> str:
    target = run.data.get("target")
    if isinstance(target, dict):
        return ", ".join(f"{key} {shown(value)}" for key, value in target.items())
    return str(target or "no named target")


def _guards(readings: Sequence[Entry]) -> Iterator[Sentence]:
    guards = [entry for entry in readings if entry.data.get("purpose") == "guard"]
    if guards:
        held = sum(bool(entry.data.get("holds")) for entry in guards)
        yield say(f"Guards that held before anything was touched: {figure(held)} of {figure(len(guards))}.", *guards)


def _told(entry: Entry, mine: Sequence[Entry]) -> Iterator[Sentence]:
    """Tell an action or a consent of a run; readings are told together."""
    if entry.kind is EntryKind.CONSENT:
        by = entry.data.get("by")
        who = names(by) if isinstance(by, list | tuple) else clean(by or "nobody", 80)
        yield say(f"Consent was {'given' if entry.data.get('granted') else 'not given'}, by {who or 'nobody'}.", entry)
    elif entry.kind is EntryKind.ACTION_DONE and not entry.data.get("undo"):
        asked = next(
            (
                one
                for one in mine
                if one.kind is EntryKind.ACTION_ASKED and one.data.get("key") == entry.data.get("key")
            ),
            None,
        )
        what = action_words(entry.data.get("action"))
        took = f", {spell(entry.at - asked.at)} after it was asked for" if asked else ""
        if entry.data.get("ok"):
            changed = changes(entry.data.get("before"), entry.data.get("after"))
            yield say(
                f"Action: {what}. Done at {clock(entry.at)} UTC{took}{': ' + changed if changed else ''}.", entry, asked
            )
        else:
            yield say(
                f"Action: {what}. It did not succeed: {as_sentence(clean(entry.data.get('error') or 'no reason given'))}",  # noqa: E501 - a sentence or a table row stays whole
                entry,
            )
    elif entry.kind is EntryKind.ACTION_ASKED and not any(
        one.kind is EntryKind.ACTION_DONE and one.data.get("key") == entry.data.get("key") for one in mine
    ):
        yield say(
            f"Action: {action_words(entry.data.get('action'))}. Asked for at {clock(entry.at)} UTC, not yet answered.",
            entry,
        )


def _proofs(readings: Sequence[Entry], mine: Sequence[Entry]) -> Iterator[Sentence]:
    for name in dict.fromkeys(entry.data.get("name") for entry in readings if entry.data.get("purpose") == "proof"):
        polled = [
            entry for entry in readings if entry.data.get("name") == name and entry.data.get("purpose") == "proof"
        ]
        last = polled[-1]
        acted = [e for e in mine if e.kind is EntryKind.ACTION_DONE and not e.data.get("undo") and e.at <= last.at]
        after = f", {spell(last.at - acted[-1].at)} after the action" if acted else ""
        times = f" It was read {figure(len(polled))} times." if len(polled) > 1 else ""
        held = "The proof held" if last.data.get("holds") else "The proof did not hold"
        yield say(
            f"{held}: “{clean(name, 80)}” read {_reading(last)} (asked: {_asked(last)}){after}.{times}",
            *polled,
            *acted[-1:],
        )


def _platform(mine: Sequence[Entry]) -> Iterator[Sentence]:
    """Tell what the platform itself said at the end of each proof."""
    told = [entry for entry in mine if entry.kind is EntryKind.PLATFORM_READ]
    for purpose, target in dict.fromkeys((entry.data.get("purpose"), entry.data.get("target")) for entry in told):
        last = [one for one in told if (one.data.get("purpose"), one.data.get("target")) == (purpose, target)][-1]
        settled = last.data.get("settled")
        verdict = "gave no answer about" if settled is None else "called settled" if settled else "did not call settled"
        detail = clean(last.data.get("detail"), 120)
        yield say(f"The platform {verdict} {clean(target, 80)}{f': {detail}' if detail else ''}.", last)


def _reading(entry: Entry) -> str:
    value = number_of(entry.data.get("value"))
    if value is not None:
        return figure(value)
    unknown = str(entry.data.get("unknown") or "")
    return UNKNOWNS.get(unknown, label(unknown) or "no value")


def _asked(entry: Entry) -> str:
    return f"{clean(entry.data.get('relation', ''), 8)} {shown(entry.data.get('expected', ''))}".strip()


def _checks(readings: Sequence[Entry]) -> Iterator[Check]:
    """Put the readings of one piece of evidence into one line."""
    for purpose, name in dict.fromkeys((entry.data.get("purpose"), entry.data.get("name")) for entry in readings):
        same = [entry for entry in readings if (entry.data.get("purpose"), entry.data.get("name")) == (purpose, name)]
        last = same[-1]
        yield Check(
            purpose=label(str(purpose)),
            name=clean(name, 120),
            query=clean(last.data.get("query", ""), 600),
            asked=_asked(last),
            said=_reading(last),
            held=bool(last.data.get("holds")),
            backed_by=tuple(entry.n for entry in same),
        )


# --- what was refused, declined or undone ----------------------------------------------------------------------------


def _refused(story: Story) -> Iterator[Sentence]:
    for entry in story.all(EntryKind.RUN_DECLINED):
        yield say(f"The runbook {clean(entry.data.get('runbook'), 80)} was not started: {_because(entry)}", entry)
    for entry in story.all(EntryKind.PERMISSION, granted=False):
        yield say(f"The action “{action_words(entry.data.get('action'))}” was not permitted: {_because(entry)}", entry)
    for entry in story.all(EntryKind.CONSENT, granted=False):
        yield say(f"Consent was not given at {clock(entry.at)} UTC.", entry)
    for entry in story.all(EntryKind.RUN_ENDED):
        if entry.data.get("outcome") in {"refused", "not_applicable"}:
            book = clean(entry.data.get("runbook"), 80)
            verb = "stopped before acting" if entry.data.get("outcome") == "refused" else "did not apply"
            yield say(f"The runbook {book} {verb}: {_because(entry)}", entry)


def _because(entry: Entry) -> str:
    reason, detail = str(entry.data.get("reason") or ""), clean(entry.data.get("detail") or "")
    why = REASONS.get(reason, label(reason) or "no reason given")
    return f"{why} ({detail.rstrip('.')})." if detail else f"{why}."


def _undone(story: Story) -> Iterator[Sentence]:
    for entry in story.all(EntryKind.ACTION_DONE, undo=True):
        what = action_words(entry.data.get("action"))
        if entry.data.get("ok"):
            changed = changes(entry.data.get("before"), entry.data.get("after"))
            yield say(f"Undone at {clock(entry.at)} UTC: {what}{' (' + changed + ')' if changed else ''}.", entry)
        else:
            yield say(
                f"Undoing did not succeed: {what}: {as_sentence(clean(entry.data.get('error') or 'no reason given'))}",
                entry,
            )
    for entry in story.all(EntryKind.EVIDENCE_READ, purpose="undo_proof", holds=True)[-1:]:
        yield say(
            f"A reading shows that undoing worked: “{clean(entry.data.get('name'), 80)}” read {_reading(entry)}.", entry
        )
    for ended in story.all(EntryKind.RUN_ENDED, outcome="not_proven"):
        if not story.all(EntryKind.ACTION_DONE, undo=True, run=ended.data.get("run")):
            yield say(f"Nothing of the runbook {clean(ended.data.get('runbook'), 80)} was taken back.", ended)
