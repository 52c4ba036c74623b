"""What a run asked and was answered, as entries of its incident's timeline."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from control.plan_digest import short
from incidents.incident import AlertFact, Incident, Signal, State, handed_over, transition
from incidents.ports import RunRecord
from incidents.timeline import Draft, EntryKind
from kernel.time import Instant
from runbooks.model import (
    Action,
    Ask,
    AskAnswer,
    Conclusion,
    Do,
    DoAnswer,
    Evidence,
    HaltMarket,
    HaltSymbol,
    Look,
    LookAnswer,
    Outcome,
    Permit,
    PermitAnswer,
    Question,
    Read,
    ReadAnswer,
    ResumeMarket,
    ResumeSymbol,
    Runbook,
    Wait,
)
from runbooks.words import describe, looked, said, wanted


def run_started(run: RunRecord, runbook: Runbook, *, by: str = "") -> Draft:
    """Tell that a run began; `by` names the person who asked for it, if one did."""
    data = {"run": run.id, "runbook": runbook.name, "title": runbook.title, "target": run.target}
    asked = f", asked for by {by}" if by else ""
    text = f"{runbook.name} begins on {run.target}: {runbook.title}{asked}"
    return Draft(run.started_at, EntryKind.RUN_STARTED, f"runbook:{runbook.name}", text, data)


def run_declined(runbook: str, reason: str, detail: str, at: Instant) -> Draft:
    """Tell that a run was not begun."""
    data = {"runbook": runbook, "reason": reason, "detail": detail}
    return Draft(at, EntryKind.RUN_DECLINED, "control", f"{runbook} is not begun: {detail}", data)


def asked(run: RunRecord, question: Question, at: Instant) -> list[Draft]:
    """Tell what is about to be done; other questions are told with their answers."""
    if not isinstance(question, Do):
        return []
    verb = "take back by asking to" if question.undo else "asked to"
    data = {"run": run.id, "key": question.key, "action": to_data(question.action), "undo": question.undo}
    text = f"{verb} {describe(question.action)}"
    return [Draft(at, EntryKind.ACTION_ASKED, f"runbook:{run.runbook}", text, data)]


def answered(run: RunRecord, question: Question, answer: object, *, worth_telling: bool) -> list[Draft]:
    """Tell an answer. Readings of a proof that is still open are told only when `worth_telling`."""
    match question, answer:
        case Read(), ReadAnswer():
            return [evidence(run, question.evidence, question.purpose, answer)] if worth_telling else []
        case Look(), LookAnswer():
            return [platform(run, question, answer)] if worth_telling else []
        case Permit(), PermitAnswer():
            return [_permission(run, question, answer)]
        case Ask(), AskAnswer():
            return [_consent(run, question, answer)]
        case Do(), DoAnswer():
            return [_done(run, question, answer)]
        case Wait(), _:
            return []
    raise AssertionError(f"{question!r} was answered by {answer!r}")


def evidence(run: RunRecord, asked_for: Evidence, purpose: str, answer: ReadAnswer) -> Draft:
    """Tell one reading."""
    holds = answer.value is not None and asked_for.holds(answer.value)
    data: dict[str, object] = {
        "run": run.id,
        "purpose": purpose,
        "name": asked_for.name,
        "query": asked_for.query,
        "relation": str(asked_for.relation),
        "expected": asked_for.expected,
        "value": answer.value,
        "data_at": answer.data_at,
        "unknown": answer.unknown,
        "detail": answer.detail,
        "holds": holds,
    }
    verdict = "holds" if holds else "has no answer" if answer.value is None else "does not hold"
    text = f"{purpose.replace('_', ' ')}: {wanted(asked_for)} {verdict}: {said(answer)}"
    return Draft(answer.at, EntryKind.EVIDENCE_READ, "prometheus", text, data)


def platform(run: RunRecord, question: Look, answer: LookAnswer) -> Draft:
    """Tell what the platform said of a workload or node."""
    data: dict[str, object] = {
        "run": run.id,
        "purpose": question.purpose,
        "target": question.target,
        "settled": answer.settled,
        "seen_at": answer.seen_at,
        "restarts": answer.restarts,
        "detail": answer.detail,
    }
    text = f"{question.purpose.replace('_', ' ')}: {question.target} is {looked(answer)}"
    return Draft(answer.at, EntryKind.PLATFORM_READ, "platform", text, data)


def _permission(run: RunRecord, question: Permit, answer: PermitAnswer) -> Draft:
    verdict = "may" if answer.granted else "may not"
    because = f": {answer.detail}" if answer.detail else ""
    data = {
        "run": run.id,
        "action": to_data(question.action),
        "granted": answer.granted,
        "reason": answer.reason,
        "detail": answer.detail,
    }
    text = f"the run {verdict} {describe(question.action)}{because}"
    return Draft(answer.at, EntryKind.PERMISSION, "control", text, data)


def _consent(run: RunRecord, question: Ask, answer: AskAnswer) -> Draft:
    who = ", ".join(answer.by) or "nobody"
    plan = f" to plan {short(answer.plan)}" if answer.plan else ""
    because = f" ({answer.detail})" if answer.detail else ""
    text = f"consent{plan} {'given' if answer.granted else 'not given'} by {who}: {question.what}{because}"
    data = {
        "run": run.id,
        "granted": answer.granted,
        "by": list(answer.by),
        "plan": answer.plan,
        "detail": answer.detail,
    }
    return Draft(answer.at, EntryKind.CONSENT, "control", text, data)


def consent_asked(run: RunRecord, words: str, at: Instant) -> Draft:
    """Tell that consent is asked for, or asked anew and what that made void."""
    data = {"run": run.id, "by": "control", "text": words}
    return Draft(at, EntryKind.NOTE, "control", f"{run.runbook} {words}", data)


def _done(run: RunRecord, question: Do, answer: DoAnswer) -> Draft:
    facts = ", ".join(
        f"{name} {answer.before[name]} -> {value}" if name in answer.before else f"{name} {value}"
        for name, value in answer.after.items()
    )
    outcome = f"done ({facts or 'no facts given'})" if answer.ok else f"not done: {answer.error or answer.refused}"
    data: dict[str, object] = {
        "run": run.id,
        "key": question.key,
        "action": to_data(question.action),
        "undo": question.undo,
        "ok": answer.ok,
        "before": dict(answer.before),
        "after": dict(answer.after),
        "error": answer.error or answer.refused,
    }
    source = "exchange" if "symbol" in to_data(question.action) else "estate"
    return Draft(answer.at, EntryKind.ACTION_DONE, source, f"{describe(question.action)}: {outcome}", data)


def run_ended(run: RunRecord, conclusion: Conclusion, incident: Incident, runbook: Runbook) -> list[Draft]:
    """Tell how a run ended, and what that means for its incident."""
    assert run.ended_at is not None, "an ended run has an end"
    data = {
        "run": run.id,
        "runbook": run.runbook,
        "outcome": str(conclusion.outcome),
        "reason": conclusion.reason,
        "detail": conclusion.detail,
    }
    text = f"{run.runbook} ended: {conclusion.outcome}. {conclusion.detail}".strip()
    drafts = [Draft(run.ended_at, EntryKind.RUN_ENDED, f"runbook:{run.runbook}", text, data)]
    siblings = [one for one in incident.firing if _is_sibling(one, run)]
    if conclusion.outcome is Outcome.MENDED and incident.unresolved and not siblings:
        why = f"{run.runbook} was proven to have helped"
        drafts.append(transition(incident, Signal.VERIFIED, at=run.ended_at, source="control", why=why))
    elif conclusion.outcome not in {Outcome.MENDED, Outcome.NOT_APPLICABLE} and incident.state is not State.RESOLVED:
        reason = f"{run.runbook} ended as {conclusion.outcome}. {conclusion.detail}".strip()
        drafts.append(handed_over(at=run.ended_at, source="control", reason=reason, what_to_do=runbook.when_refused))
    return drafts


def stays_halted(run: RunRecord, conclusion: Conclusion, incident: Incident, runbook: Runbook) -> list[Draft]:
    """Tell that a halt which helped is a person's to end; nothing when the runbook left nothing halted."""
    halts = [describe(action) for action in _halts_left(runbook)]
    if conclusion.outcome is not Outcome.MENDED or not halts or not incident.unresolved:
        return []
    assert run.ended_at is not None, "an ended run has an end"
    reason = f"{runbook.name} did what it should ({', '.join(halts)}); trading stays halted until a person reopens it"
    return [handed_over(at=run.ended_at, source="control", reason=reason, what_to_do=runbook.when_refused)]


def _halts_left(runbook: Runbook) -> list[Action]:
    """Return the halts that no later step of the runbook ends."""
    left: list[Action] = []
    for step in runbook.steps:
        match step.action:
            case HaltSymbol() | HaltMarket():
                left.append(step.action)
            case ResumeMarket():
                left = [one for one in left if not isinstance(one, HaltMarket)]
            case ResumeSymbol(symbol):
                left = [one for one in left if not (isinstance(one, HaltSymbol) and one.symbol == symbol)]
    return left


def _is_sibling(alert: AlertFact, run: RunRecord) -> bool:
    """Tell whether an alert is of the kind the run answered, for another replica or symbol."""
    return alert.name == run.labels.get("alertname") and dict(alert.labels) != dict(run.labels)


def to_data(action: Action) -> Mapping[str, object]:
    """Return an action as plain data with its kind under `type`."""
    data = msgspec.to_builtins(action)
    assert isinstance(data, dict), "an action is an object"
    return data
