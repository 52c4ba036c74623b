"""What people ask and say about incidents and runs, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from control.errors import NotFoundError, RefusedByRailError
from control.intake import StoreThread
from control.rehearsed import Preview
from incidents.adapters.report_files import to_html
from incidents.incident import UNRESOLVED, IllegalTransitionError, Incident, Signal, transition
from incidents.markdown import to_markdown
from incidents.ports import RunRecord
from incidents.postmortem import build_report
from incidents.ranked import Ranked, ranked_of
from incidents.timeline import Draft, Entry, EntryKind
from kernel.errors import InputError
from kernel.time import HOUR, Clock, Instant
from runbooks.bind import bind
from runbooks.model import Refusal, Runbook

_TEXT_MAX: Final = 4_000
_NAME_MAX: Final = 100


class Runner(Protocol):
    """Who starts runs: the control loop."""

    async def refusal(self, bound: Runbook) -> Refusal | None:
        """Tell why a bound runbook may not begin now."""
        ...

    async def start(
        self, incident: Incident, bound: Runbook, labels: Mapping[str, str], *, arrived: Instant | None, by: str = ""
    ) -> RunRecord:
        """Start a run that was admitted."""
        ...

    async def rehearse(self, bound: Runbook, level: int) -> Preview:
        """Say what a run would do now; changes nothing."""
        ...


class Ranker(Protocol):
    """Who ranks the causes of incidents."""

    async def again(self, incident: Incident) -> Ranked:
        """Rank anew and write it down."""
        ...


Report = Callable[[str], Awaitable[object]]


async def _no_report(_: str) -> None:
    """Write nothing."""


class Desk:
    """Where people meet incidents."""

    def __init__(
        self,
        store: StoreThread,
        runner: Runner,
        library: Sequence[Runbook],
        clock: Clock,
        report: Report = _no_report,
        causes: Ranker | None = None,
    ) -> None:
        """Serve what `store` holds; hand wishes to run a runbook to `runner`.

        `report` writes an incident's report, `causes` ranks what moved first.
        """
        self._report = report
        self._causes = causes
        self._store = store
        self._runner = runner
        self._library = {runbook.name: runbook for runbook in library}
        self._clock = clock

    async def incidents(self, *, everything: bool) -> list[Incident]:
        """Return the unresolved incidents, or every one, oldest first."""
        return await self._store.call(lambda store: store.incidents(None if everything else UNRESOLVED))

    async def incident(self, incident_id: str) -> Incident:
        """Return one incident.

        Raises:
            NotFoundError: there is none of this id.
        """
        found = await self._store.call(lambda store: store.incident(incident_id))
        if found is None:
            raise NotFoundError(f"there is no incident {incident_id[:60]!r}; `tapewatch incident list --all` shows all")
        return found

    async def timeline(self, incident_id: str) -> tuple[list[Entry], str | None]:
        """Return an incident's entries, and what is wrong with their chain if anything is."""
        await self.incident(incident_id)
        entries = await self._store.call(lambda store: store.timeline(incident_id))
        tamper = await self._store.call(lambda store: store.verify(incident_id))
        return entries, tamper.text if tamper is not None else None

    async def postmortem(self, incident_id: str, form: str) -> str:
        """Return the report of an incident as it stands, as `html` or `md`."""
        incident = await self.incident(incident_id)
        entries, tamper = await self.timeline(incident_id)
        report = build_report(incident, entries, self._clock.now(), tamper=tamper)
        return to_html(report) if form == "html" else to_markdown(report)

    async def acknowledge(self, incident_id: str, by: str) -> Incident:
        """Let a person take an incident on.

        Raises:
            RefusedByRailError: somebody has, and nothing new was handed over since.
        """
        known = await self.incident(incident_id)
        if known.acknowledged_at is not None and known.unresolved:
            raise RefusedByRailError(f"{incident_id} is acknowledged by {known.acknowledged_by} already")
        return await self._move(incident_id, Signal.ACKNOWLEDGE, by, f"{_name(by)} takes it on")

    async def resolve(self, incident_id: str, by: str, text: str, *, force: bool = False) -> Incident:
        """Let a person close an incident.

        Raises:
            RefusedByRailError: alerts of it still fire, and closing was not forced: nobody would hear of them again.
        """
        firing = sorted({alert.name for alert in (await self.incident(incident_id)).firing})
        if firing and not force:
            raise RefusedByRailError(
                f"{incident_id}: {', '.join(firing)} still fires; closing would hide it. Mend it first, or force it"
            )
        closed = await self._move(incident_id, Signal.CLOSE, by, f"closed by {_name(by)}: {_text(text) or 'no reason'}")
        await self._report(incident_id)
        return closed

    async def note(self, incident_id: str, by: str, text: str) -> Incident:
        """Add a person's words to the timeline."""
        await self.incident(incident_id)
        words = _text(text)
        if not words:
            raise InputError("text", "is empty", right="say what is to be kept")
        draft = Draft(self._clock.now(), EntryKind.NOTE, f"person:{_name(by)}", words, {"by": _name(by), "text": words})
        await self._store.call(lambda store: store.append(incident_id, [draft]))
        return await self.incident(incident_id)

    async def causes(self, incident_id: str, *, again: bool = False) -> Ranked:
        """Return what moved first as the timeline tells it; ranked anew when it tells nothing, or `again` is asked.

        Raises:
            RefusedByRailError: nobody ranks here.
        """
        incident = await self.incident(incident_id)
        entries = await self._store.call(lambda store: store.timeline(incident_id))
        made = [ranked_of(entry) for entry in entries if entry.kind is EntryKind.CAUSES_RANKED]
        told = [ranked for ranked in made if not ranked.trouble]
        if told and not again:
            return told[-1]
        if self._causes is None:
            raise RefusedByRailError("the list of watched series cannot be read: see the log of control")
        return await self._causes.again(incident)

    async def runs(self) -> list[RunRecord]:
        """Return the runs of the past day, oldest first."""
        since = Instant(self._clock.now() - 24 * HOUR)
        return await self._store.call(lambda store: store.runs_since(since))

    async def run(self, name: str, labels: Mapping[str, str], by: str) -> RunRecord:
        """Start a runbook because a person asked for it. Every guard and rail holds for people too.

        Raises:
            NotFoundError: no runbook has this name.
            RefusedByRailError: a rail forbids it now.
        """
        who = _name(by)
        runbook, bound = self._bound(name, labels)
        refusal = await self._runner.refusal(bound)
        if refusal is not None:
            raise RefusedByRailError(f"{refusal.reason}: {refusal.detail}")
        incident = await self._incident_for(runbook, labels, who)
        return await self._runner.start(incident, bound, labels, arrived=None, by=who)

    async def rehearse(self, name: str, labels: Mapping[str, str]) -> Preview:
        """Say what a run that a person asked for would do now. Begins no run and opens no incident.

        Raises:
            NotFoundError: no runbook has this name.
            RefusedByRailError: the labels name no target.
        """
        runbook, bound = self._bound(name, labels)
        same = next((one for one in await self.incidents(everything=False) if _takes_in(one, runbook, labels)), None)
        return await self._runner.rehearse(bound, same.level if same is not None else runbook.level)

    def _bound(self, name: str, labels: Mapping[str, str]) -> tuple[Runbook, Runbook]:
        """Return a runbook as it is written, and bound to labels."""
        runbook = self._library.get(name)
        if runbook is None:
            raise NotFoundError(f"there is no runbook {name[:60]!r}, only {', '.join(sorted(self._library))}")
        bound = bind(runbook, labels)
        if isinstance(bound, Refusal):
            raise RefusedByRailError(f"{bound.reason}: {bound.detail}")
        return runbook, bound

    async def _incident_for(self, runbook: Runbook, labels: Mapping[str, str], by: str) -> Incident:
        """Return the unresolved incident that the person's run answers, or open one for it."""
        unresolved = await self.incidents(everything=False)
        same = next((one for one in unresolved if _takes_in(one, runbook, labels)), None)
        if same is not None:
            return same
        now = self._clock.now()
        incident_id = await self._store.call(lambda store: store.new_id(now))
        data = {
            "incident": incident_id,
            "title": f"{runbook.title} (asked for by {by})",
            "level": runbook.level,
            "service": runbook.service,
            "team": runbook.team,
            "key": f"person/{incident_id}",
        }
        opened = Draft(now, EntryKind.OPENED, f"person:{by}", f"Opened by {by} to run {runbook.name}", data)
        await self._store.call(lambda store: store.append(incident_id, [opened]))
        return await self.incident(incident_id)

    async def _move(self, incident_id: str, signal: Signal, by: str, why: str) -> Incident:
        incident = await self.incident(incident_id)
        try:
            draft = transition(incident, signal, at=self._clock.now(), source=f"person:{_name(by)}", why=why)
            await self._store.call(lambda store: store.append(incident_id, [draft]))
        except IllegalTransitionError as error:
            raise RefusedByRailError(f"{incident_id}: {error}") from error
        return await self.incident(incident_id)


def _takes_in(incident: Incident, runbook: Runbook, labels: Mapping[str, str]) -> bool:
    """Tell whether a person's run belongs to an unresolved incident: one of its alerts fires that the run answers.

    Of the same service is not enough: a proof that mends one thing must not be told as the cure of another.
    """
    meant = [(label, labels.get(label)) for label in runbook.parameters.values()]
    return not incident.active_runs and any(
        alert.name in runbook.answers and all(alert.labels.get(label) == value for label, value in meant)
        for alert in incident.firing
    )


def _name(by: str) -> str:
    name = by.strip()
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise InputError("by", f"is {name[:20]!r}", right=f"a name of up to {_NAME_MAX} letters")
    return name


def _text(text: str) -> str:
    if len(text) > _TEXT_MAX:
        raise InputError("text", f"has {len(text)} letters", right=f"up to {_TEXT_MAX}")
    return text.strip()
