"""How a live rehearsal and a question for consent look on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape

from control.plan_digest import short
from control.rehearsed import Preview, Seen, StepSeen
from control.terminal import out
from incidents.words import clean
from runbooks.model import Consent

_PEOPLE = {
    Consent.AUTOMATIC: "nobody is asked",
    Consent.ONE_APPROVER: "one person has to approve",
    Consent.FOUR_EYES: "two different people have to approve",
}
_LONG = 2_000
"""Letters of a sentence that the terminal shows."""


def print_preview(told: Preview) -> None:
    """Print what a run would do if it began now."""
    out.print(f"[bold]{_text(told.runbook)}[/] on {_text(told.target)}, as things are now: {_text(told.title)}")
    lines = [("phase", f"the market is in {told.phase}"), *(("guard", _seen(guard)) for guard in told.guards)]
    for number, step in enumerate(told.steps, 1):
        lines += [(f"step {number}", f"{step.name}: {step.does}"), *_step(step)]
    plan = short(told.plan) or "none: the plant cannot be seen"
    lines += [("consent", f"{_PEOPLE[told.consent]} (level {told.level})"), ("plan", plan)]
    for name, text in lines:
        out.print(f"  {name:10}{_text(text)}", soft_wrap=True)
    if told.begins:
        out.print(f"[bold green]would begin[/]: {_text(told.detail)}. Nothing was done.", soft_wrap=True)
    else:
        verdict = "would not apply" if told.would == "not_applicable" else "would be refused"
        detail = told.detail.removesuffix("Nothing was done.").strip().rstrip(".")
        out.print(f"[bold red]{verdict}[/] ({_text(told.reason)}): {_text(detail)}. Nothing was done.", soft_wrap=True)


def _step(step: StepSeen) -> Iterator[tuple[str, str]]:
    yield "", f"touches {step.replicas}; {step.market}"
    for line in step.platform:
        yield "", f"platform: {line}"
    yield "", "the rails permit it" if step.permitted else f"refused ({step.reason}): {step.detail}"
    if step.proof_now is not None:
        now = "holds already" if step.proof_now.holds else "does not hold now"
        yield "  proof", f"{step.proof}; it reads {step.proof_now.reads}, which {now}"
    yield "  undo", step.undo.replace("_", " ")


def _seen(guard: Seen) -> str:
    age = "" if guard.age_s is None else f", {guard.age_s:.1f} s old"
    return f"{guard.wanted} {'holds' if guard.holds else 'does not hold'}: it reads {guard.reads}{age}"


def print_question(asked: Mapping[str, Any]) -> None:
    """Print one question for consent, as control's interface tells it."""
    missing = int(asked["needed"]) - len(asked["granted"])
    agreed = ", ".join(asked["granted"]) or "nobody"
    people = "person" if missing == 1 else "people"
    lines = [("wants to", asked["what"]), *(("", text) for text in asked["does"])]
    lines += [
        ("plan", asked["plan_short"]),
        ("agreed", f"{agreed}; {missing} more {people} needed"),
        ("time left", f"{float(asked['left_s']):.0f} s, then silence counts as no"),
        *(("note", text) for text in asked["renewed"]),
        ("answer", f"tapewatch approve {asked['run']} --plan {asked['plan_short']}"),
    ]
    out.print(f"[bold]{_text(asked['run'])}[/]", soft_wrap=True)
    for name, text in lines:
        out.print(f"  {name:10}{_text(text)}", soft_wrap=True)


def _text(value: object) -> str:
    return escape(clean(value, _LONG))
