"""Rehearsing a runbook against the live plant: everything is read and asked, nothing is done.

The run's own machine is driven with live answers up to its first action, so a rehearsal ends where the run would. Then
every further step is held against the rails and, where the platform can say, rehearsed by the platform itself. A later
step is judged on the facts as they are now, before the earlier ones: the platform's word on it is told and decides
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from control import killswitch
from control.consent import people_needed
from control.driver import Parts
from control.plan_digest import plan_of, short
from control.rehearsed import BEGINS, Preview, Seen, StepSeen
from kernel.errors import TapewatchError
from kernel.time import SECOND, Instant
from monitor.ports import Reading
from runbooks.facts import PastRun, PlantFacts, find, target, workload_of
from runbooks.model import (
    Action,
    Ask,
    AskAnswer,
    Conclusion,
    Consent,
    Do,
    Evidence,
    HaltMarket,
    HaltSymbol,
    Outcome,
    Permit,
    PermitAnswer,
    Read,
    ReadAnswer,
    Refusal,
    RefusalReason,
    ResumeMarket,
    ResumeSymbol,
    Runbook,
    Scale,
    Step,
)
from runbooks.policy import permit
from runbooks.ports import RefusedError
from runbooks.rails import ALWAYS, is_disruptive, market_share, touched
from runbooks.run import advance, run
from runbooks.words import describe, promised, said, wanted


async def preview(parts: Parts, bound: Runbook, level: int, refusal: Refusal | None) -> Preview:
    """Rehearse a bound runbook. `refusal` is why it may not begin at all, as the loop says."""
    guards = await asyncio.gather(*(_read(parts, guard.evidence) for guard in bound.guards))
    seen = tuple(_seen(guard.evidence, answer) for guard, answer in zip(bound.guards, guards, strict=True))
    told = Preview(
        runbook=bound.name,
        title=bound.title,
        target=target(bound),
        level=level,
        phase=ALWAYS,
        guards=seen,
        steps=(),
        consent=bound.consent,
        people=people_needed(bound.consent),
        plan="",
        would=Outcome.REFUSED,
        reason="",
        detail="",
    )
    try:
        facts = await parts.facts()
        facts = await parts.market(facts) if parts.market is not None else facts
    except TapewatchError as error:
        return msgspec.structs.replace(told, reason=RefusalReason.NO_EVIDENCE, detail=str(error))
    past = await parts.history(parts.clock.now())
    plan = plan_of(bound, facts)
    steps = await asyncio.gather(*(_step(parts, bound, step, facts, past) for step in bound.steps))
    conclusion = _driven(bound, guards, plan.digest, steps)
    would, reason, detail = _verdict(refusal, conclusion, steps)
    return msgspec.structs.replace(
        told,
        phase=facts.market.phase if facts.market is not None else ALWAYS,
        steps=tuple(steps),
        plan=plan.digest,
        would=would,
        reason=reason,
        detail=detail or _asks(bound, plan.digest),
    )


def _driven(bound: Runbook, guards: Sequence[ReadAnswer], plan: str, steps: Sequence[StepSeen]) -> Conclusion | None:
    """Drive the run's machine up to its first action; return how it ended before, or None when it would begin.

    All is answered as of one instant: how long asking takes here says nothing of the run.
    """
    machine, left = run(bound, "rehearsal"), iter(guards)
    now = max((answer.at for answer in guards), default=Instant(0))
    question = advance(machine)
    while True:
        match question:
            case Read():
                question = advance(machine, next(left))
            case Ask():
                question = advance(machine, AskAnswer(now, granted=True, by=("rehearsal",), plan=plan))
            case Permit():
                first = steps[0]
                permission = PermitAnswer(now, granted=first.permitted, reason=first.reason, detail=first.detail)
                question = advance(machine, permission)
            case Do():
                return None
            case Conclusion():
                return question
            case _:
                raise AssertionError(f"a run asks {question!r} before it acts")


def _verdict(refusal: Refusal | None, conclusion: Conclusion | None, steps: Sequence[StepSeen]) -> tuple[str, str, str]:
    if conclusion is not None and conclusion.outcome is Outcome.NOT_APPLICABLE:
        return Outcome.NOT_APPLICABLE, conclusion.reason, conclusion.detail
    if refusal is not None:
        return Outcome.REFUSED, refusal.reason, refusal.detail
    if conclusion is not None:
        return Outcome.REFUSED, conclusion.reason, conclusion.detail
    for number, step in enumerate(steps, 1):
        if not step.permitted:
            return Outcome.REFUSED, step.reason, f"step {number} ({step.name}): {step.detail}"
    return BEGINS, "", ""


def _asks(bound: Runbook, plan: str) -> str:
    match bound.consent:
        case Consent.AUTOMATIC:
            return "it would act at once, nobody is asked"
        case Consent.ONE_APPROVER:
            return f"one person has to approve plan {short(plan)} before it acts"
        case Consent.FOUR_EYES:
            return f"two different people have to approve plan {short(plan)} before it acts"


async def _step(parts: Parts, bound: Runbook, step: Step, facts: PlantFacts, past: Sequence[PastRun]) -> StepSeen:
    now, thrown = parts.clock.now(), killswitch.read(parts.kill_switch) is not None
    rails = permit(step.action, runbook=bound, facts=facts, history=past, kill_switch=thrown, now=now)
    refusal = None if rails.granted else Refusal(RefusalReason(rails.reason), rails.detail)
    lines, refused = await _by_platform(parts, step.action)
    if refusal is None and step is bound.steps[0]:
        refusal = refused
    proof = step.proof.evidence if step.proof is not None else None
    return StepSeen(
        name=step.name,
        does=describe(step.action),
        undo=str(step.undo),
        proof=promised(step.proof) if step.proof is not None else "",
        proof_now=_seen(proof, await _read(parts, proof)) if proof is not None else None,
        replicas=_replicas(step.action, facts),
        market=_market(step.action, facts),
        platform=lines,
        permitted=refusal is None,
        reason=refusal.reason if refusal is not None else "",
        detail=refusal.detail if refusal is not None else "",
    )


async def _by_platform(parts: Parts, action: Action) -> tuple[tuple[str, ...], Refusal | None]:
    """Return what the platform says of an action, and why it would refuse it."""
    try:
        return tuple(await parts.plant.rehearse(action)), None
    except RefusedError as error:
        return (f"the platform would refuse it: {error}",), Refusal(error.reason, str(error))
    except TapewatchError as error:
        return (f"the platform does not say: {error}",), Refusal(RefusalReason.NO_EVIDENCE, str(error))


async def _read(parts: Parts, evidence: Evidence) -> ReadAnswer:
    reading = await parts.metrics.read(evidence.query, fresh=evidence.fresh, max_age=evidence.max_age_ns)
    now = parts.clock.now()
    if isinstance(reading, Reading):
        return ReadAnswer(now, value=reading.value, data_at=reading.data_at)
    return ReadAnswer(now, value=None, data_at=None, unknown=reading.why, detail=reading.detail)


def _seen(evidence: Evidence, answer: ReadAnswer) -> Seen:
    age = None if answer.data_at is None else max(answer.at - answer.data_at, 0) / SECOND
    holds = answer.value is not None and evidence.holds(answer.value)
    return Seen(wanted=wanted(evidence), reads=said(answer), value=answer.value, age_s=age, holds=holds)


# --- in units of replicas and of the market ------------------------------------------------------------------------


def _replicas(action: Action, facts: PlantFacts) -> str:
    """Say how many replicas an action touches."""
    name, count = workload_of(action), touched(action, facts)
    workload = find(facts, name)
    if not count:
        return "no replica"
    if isinstance(action, Scale) and action.by > 0 and workload is not None:
        return f"{count} new beside {len(workload.replicas)} of {name}"
    of = f" of {len(workload.replicas)} replicas of {name}" if workload is not None else " replicas"
    return f"{count}{of}"


def _market(action: Action, facts: PlantFacts) -> str:
    """Say what of the market an action touches at once."""
    if isinstance(action, HaltSymbol | HaltMarket | ResumeSymbol | ResumeMarket):
        count = 1 if isinstance(action, HaltSymbol | ResumeSymbol) else len(facts.symbols)
        verb = "trading stops in" if isinstance(action, HaltSymbol | HaltMarket) else "trading goes on in"
        return f"{verb} {count} of {len(facts.symbols)} symbols"
    if not is_disruptive(action):
        return "nobody who trades should feel it"
    share = market_share(action, facts)
    if share is None:
        return "what of the market goes through it is not known"
    if not (share.symbols or share.volume or share.notional):
        return "nothing of the market goes through it now"
    return (
        f"{share.symbols} symbols, {share.volume:.0%} of the order volume and an open notional of {share.notional:,} "
        "ticks go through it"
    )
