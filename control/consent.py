"""Consent of people to what a runbook is about to do: who must agree, asked, granted, denied, expired or made void.

A question names a plan (`control.plan_digest`) and is good for that plan alone. When the facts change while it stands,
it is asked anew: what people had agreed to is void. Questions live with the control process. After a restart the
resumed run asks again, and whoever had agreed before has to agree again: that is the safe side.
"""

from __future__ import annotations

import asyncio
import difflib
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from control.errors import RefusedByRailError
from control.plan_digest import SHORT, Plan, names_plan
from kernel.errors import InputError, PermanentError, TapewatchError
from kernel.time import Instant
from runbooks.model import Ask, AskAnswer, Consent, Permit, Question, Runbook

EVERY: Final = "*"
"""In the floor of consent: every runbook."""
WATCH_S: Final = 1.0
"""How often the facts behind an open question are looked at."""
_TIGHTER: Final = (Consent.AUTOMATIC, Consent.ONE_APPROVER, Consent.FOUR_EYES)
_PEOPLE: Final = {Consent.AUTOMATIC: 0, Consent.ONE_APPROVER: 1, Consent.FOUR_EYES: 2}
_NAME_MAX: Final = 100
_WHY_MAX: Final = 500

Look = Callable[[], Awaitable[Plan]]
"""Works the plan out on the facts as they are now; raises `TapewatchError` when they cannot be seen."""
Told = Callable[[str], Awaitable[None]]
"""Is told, in a sentence, that a question is asked, or asked anew."""


# --- who must agree ------------------------------------------------------------------------------------------------


def consent_for(runbook: Runbook, level: int, floor: Mapping[str, Consent]) -> Consent:
    """Return who must agree at an incident's level. `floor` (by runbook, or `*`) can only ask for more."""
    asked = runbook.consent_by_level.get(level, runbook.consent)
    least = (floor.get(name, Consent.AUTOMATIC) for name in (EVERY, runbook.name))
    return max((asked, *least), key=_TIGHTER.index)


def check_floor(floor: Mapping[str, Consent], library: Path) -> None:
    """Refuse a floor for a runbook that does not exist: mistyped, it would silently protect nothing.

    Raises:
        InputError: names it and those there are.
    """
    known = sorted(path.stem for path in library.glob("*.yaml"))
    for name in floor:
        if name not in {EVERY, *known}:
            near = difflib.get_close_matches(name, known, n=1)
            right = f"did you mean {near[0]}?" if near else f"one of *, {', '.join(known)}"
            raise InputError("setting consent_floor", f"there is no runbook {name[:60]!r}", right=right)


def consent_on_record(questions: Iterable[Question]) -> Consent | None:
    """Return who had to agree according to a run's own journal; None while that was not yet asked or passed over.

    A run that was cut short goes on under the consent it began with, whatever became of its incident's level since.
    """
    for question in questions:
        if isinstance(question, Ask):
            return question.consent
        if isinstance(question, Permit):
            return Consent.AUTOMATIC
    return None


def people_needed(consent: Consent) -> int:
    """Return how many different people must agree."""
    return _PEOPLE[consent]


# --- the questions -------------------------------------------------------------------------------------------------


@dataclass
class Open:
    """A question that waits for people."""

    run: str
    what: str
    consent: Consent
    plan: Plan
    does: tuple[str, ...]
    """What would be done, a sentence a step."""
    until: float
    """When silence counts as no, by the event loop's clock."""
    granted: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    """Each time it was asked anew, in words."""
    verdict: asyncio.Future[AskAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def needed(self) -> int:
        """How many people must agree."""
        return people_needed(self.consent)

    @property
    def words(self) -> str:
        """What is asked, in a sentence, and how it is answered."""
        people = "two different people" if self.needed > 1 else "one person"
        how = f"`tapewatch approve {self.run} --plan {self.plan.short}` or `tapewatch deny {self.run}`"
        return (
            f"asks {people} to approve plan {self.plan.short} within {self.left_s:.0f} s: {self.what}. Answer by {how}"
        )

    @property
    def left_s(self) -> float:
        """Seconds until silence counts as no."""
        return max(self.until - asyncio.get_running_loop().time(), 0.0)


class Consents:
    """The questions open now, and how people answer them. Silence counts as no."""

    def __init__(self, expiry_s: float, watch_s: float = WATCH_S) -> None:
        """Let each question stand for `expiry_s` seconds; look every `watch_s` whether its plan still stands."""
        self._expiry_s = expiry_s
        self._watch_s = watch_s
        self._open: dict[str, Open] = {}

    @property
    def open(self) -> Mapping[str, Open]:
        """The questions that wait, by run."""
        return self._open

    async def wait_for(
        self, run: str, asked: Ask, look: Look, *, does: tuple[str, ...] = (), told: Told | None = None
    ) -> AskAnswer:
        """Wait until enough people agreed to the same plan, one refused, or time ran out.

        A question that is asked anew has no more time than was left: facts that keep changing end it, too.
        """
        until = asyncio.get_running_loop().time() + self._expiry_s
        plan = await self._first(look, until)
        if isinstance(plan, str):
            detail = f"there was no plan to agree to, for the plant cannot be seen: {plan}"
            return AskAnswer(at=Instant(0), granted=False, detail=detail)
        question = self._open[run] = Open(run, asked.what, asked.consent, plan, does, until)
        try:
            if told is not None:
                await told(question.words)
            while question.left_s > 0:
                await asyncio.wait({question.verdict}, timeout=min(question.left_s, self._watch_s))
                if question.verdict.done():
                    return question.verdict.result()
                await self._renew(question, look, told)
            return _expired(question)
        finally:
            self._open.pop(run, None)

    async def _first(self, look: Look, until: float) -> Plan | str:
        """Return the plan, or why there was none until time ran out."""
        while True:
            try:
                return await look()
            except TapewatchError as error:
                if asyncio.get_running_loop().time() + self._watch_s >= until:
                    return str(error)
            await asyncio.sleep(self._watch_s)

    async def _renew(self, question: Open, look: Look, told: Told | None) -> None:
        """Ask anew when the facts have changed. While they cannot be seen it stands: permission looks once more."""
        try:
            plan = await look()
        except TapewatchError:
            return
        changed = question.plan.differs(plan)
        if not changed or question.verdict.done():
            return
        void = f"; void is the consent of {', '.join(question.granted)}" if question.granted else ""
        words = f"asks anew, for the facts changed: {changed}. Plan {question.plan.short} became {plan.short}{void}"
        question.plan, question.granted = plan, []
        question.renewed.append(words)
        if told is not None:
            await told(words)

    def answer(self, run: str, by: str, *, grant: bool, plan: str = "", why: str = "") -> str:
        """Let a person answer; returns what still is to come, in words. `plan` is the digest they mean, if they say.

        Raises:
            InputError: `by` is no name, `plan` no digest, or `why` too long.
            RefusedByRailError: another plan is meant, or the same person agrees twice where two are needed.
            PermanentError: the run asks nothing.
        """
        by, why = " ".join(by.split()), " ".join(why.split())
        if not by or not by.isprintable() or len(by) > _NAME_MAX:
            raise InputError("by", f"is {by[:20]!r}", right=f"a name of up to {_NAME_MAX} letters")
        if len(why) > _WHY_MAX:
            raise InputError("why", f"has {len(why)} letters", right=f"up to {_WHY_MAX}")
        question = self._open.get(run)
        if question is None or question.verdict.done():
            raise PermanentError(f"run {run} asks for no consent now; `tapewatch runbook asking` shows which do")
        if not grant:
            detail = f"denied by {by}" + (f": {why}" if why else "")
            question.verdict.set_result(AskAnswer(at=Instant(0), granted=False, by=(by,), detail=detail))
            return "denied: the run ends without acting"
        _meant(question, plan)
        if _person(by) in {_person(one) for one in question.granted}:
            raise RefusedByRailError(f"{by} agreed already; a second person is needed")
        question.granted.append(by)
        missing = question.needed - len(question.granted)
        if missing > 0:
            return f"agreed to plan {question.plan.short}: {missing} more person has to agree"
        agreed = AskAnswer(at=Instant(0), granted=True, by=tuple(question.granted), plan=question.plan.digest)
        question.verdict.set_result(agreed)
        return f"granted for plan {question.plan.short}: the run goes on"


def _meant(question: Open, plan: str) -> None:
    """Refuse an approval of another plan than the one asked for."""
    given = plan.strip().lower()
    if given and (len(given) < SHORT or not set(given) <= set("0123456789abcdef")):
        right = f"give at least {SHORT} hex digits, as `tapewatch runbook asking` shows them"
        raise InputError("plan", f"{plan[:70]!r} is no plan's hash", right=right)
    if given and not names_plan(given, question.plan.digest):
        since = f" The run {question.renewed[-1]}." if question.renewed else ""
        raise RefusedByRailError(
            f"{question.run} asks for plan {question.plan.short}, not {given[:SHORT]}; "
            f"look at it again with `tapewatch runbook asking`.{since}"
        )


def _person(name: str) -> str:
    """Return what is the same for one person's name, however it is spelled."""
    return unicodedata.normalize("NFKC", name).casefold()


def _expired(question: Open) -> AskAnswer:
    agreed = len(question.granted)
    said = f"only {agreed} of {question.needed} agreed" if agreed else "nobody answered"
    again = f"; the run {question.renewed[-1]}" if question.renewed else ""
    return AskAnswer(at=Instant(0), granted=False, by=tuple(question.granted), detail=f"{said} in time{again}")
