"""Consent of people to what a runbook is about to do: asked, granted by one or by two, denied, or expired."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kernel.errors import InputError, PermanentError
from kernel.time import Instant
from runbooks.model import AskAnswer, Consent

_NAME_MAX: Final = 100


@dataclass
class Open:
    """A question that waits for people."""

    run: str
    what: str
    needed: int
    granted: list[str] = field(default_factory=list)
    verdict: asyncio.Future[AskAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Consents:
    """The questions open now, and how people answer them. Silence counts as no."""

    def __init__(self, expiry_s: float) -> None:
        """Let each question stand for `expiry_s` seconds."""
        self._expiry_s = expiry_s
        self._open: dict[str, Open] = {}

    @property
    def open(self) -> Mapping[str, Open]:
        """The questions that wait, by run."""
        return self._open

    async def wait_for(self, run: str, consent: Consent, what: str) -> AskAnswer:
        """Wait until enough people agreed, one refused, or time ran out."""
        question = Open(run, what, 2 if consent is Consent.FOUR_EYES else 1)
        self._open[run] = question
        try:
            return await asyncio.wait_for(question.verdict, self._expiry_s)
        except TimeoutError:
            said = (
                f"only {len(question.granted)} of {question.needed} agreed" if question.granted else "nobody answered"
            )
            return AskAnswer(at=Instant(0), granted=False, by=tuple(question.granted), detail=f"{said} in time")
        finally:
            self._open.pop(run, None)

    def answer(self, run: str, by: str, *, grant: bool) -> str:
        """Let a person answer; returns what still is to come, in words.

        Raises:
            InputError: `by` is no name.
            PermanentError: the run asks nothing, or the same person agrees twice where two are needed.
        """
        by = " ".join(by.split())
        if not by or not by.isprintable() or len(by) > _NAME_MAX:
            raise InputError("by", f"is {by[:20]!r}", right=f"a name of up to {_NAME_MAX} letters")
        question = self._open.get(run)
        if question is None or question.verdict.done():
            raise PermanentError(f"run {run} asks for no consent now")
        if not grant:
            question.verdict.set_result(AskAnswer(at=Instant(0), granted=False, by=(by,), detail=f"denied by {by}"))
            return "denied: the run ends without acting"
        if by.casefold() in {one.casefold() for one in question.granted}:
            raise PermanentError(f"{by} agreed already; a second person is needed")
        question.granted.append(by)
        missing = question.needed - len(question.granted)
        if missing:
            return f"{missing} more person has to agree"
        question.verdict.set_result(AskAnswer(at=Instant(0), granted=True, by=tuple(question.granted)))
        return "granted: the run goes on"
