"""Writing fields of one object, compared with the facts the write was decided on, and restoring them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND
from runbooks.adapters.kubernetes.api import APPLY, MERGE, Api, ConflictError
from runbooks.adapters.kubernetes.fields import (
    Field,
    Json,
    merge_patch,
    shown,
    stranger_at,
    strangers_in,
    value_at,
    writer_of,
)
from runbooks.adapters.kubernetes.finding import is_applied, read
from runbooks.adapters.kubernetes.ledger import Entry, Mode, Plan
from runbooks.adapters.kubernetes.writer import Sender
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

TRIES: Final = 5
"""How often a write is sent again whose object moved in nothing that matters (its status)."""

Planner = Callable[[int | None], Awaitable[Plan]]


class Edit:
    """A deed that writes fields of one object."""

    def __init__(self, api: Api, request: str, planner: Planner) -> None:
        """Ask `planner` for the plan."""
        self._api = api
        self._planner = planner
        self.request = request

    async def plan(self, generation: int | None) -> Plan:
        """Decide what to write."""
        return await self._planner(generation)

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Write the fields.

        A conflict is looked into: when only the status moved, the write is sent again with the new resource version.

        Raises:
            RefusedError: `CONFLICT`: it was changed since. `OWNED`: another field manager owns a field.
            TemporaryError: it kept moving.
        """
        version, force = plan.version, False
        for _ in range(TRIES if plan.fields else 0):
            try:
                await _write(plan, version, sender, force=force)
                return dict(plan.after)
            except ConflictError as error:
                if strangers := strangers_in(error.managers):
                    words = f"{plan.what}: the fields belong to the field manager {', '.join(strangers)}"
                    raise RefusedError(RefusalReason.OWNED, words) from error
                # The fields are our own, written by another way (a patch, not an apply): they may be taken over.
                force = force or bool(error.managers)
            now = await get(self._api, plan.path, plan.what)
            if is_applied(plan, sender.stamp.key, now):
                return dict(plan.after)
            refuse_moved(plan, now)
            version = now["metadata"]["resourceVersion"]
        if plan.fields:
            raise TemporaryError(f"{plan.what} kept changing while it was written", retry_after=SECOND)
        return dict(plan.after)


async def _write(plan: Plan, version: str, sender: Sender, *, force: bool) -> None:
    body = merge_patch(plan.fields)
    body.setdefault("metadata", {})["resourceVersion"] = version
    match plan.mode:
        case "apply":
            body = {**plan.body, **body, "metadata": {**plan.body["metadata"], **body["metadata"]}}
            forced = "true" if force else "false"
            await sender.send("PATCH", plan.path, body, Json, content_type=APPLY, force=forced)
        case "scale":
            # The annotations of a Scale reach nobody; here the field manager carries the epoch.
            manager = sender.stamp.writes_as
            await sender.send("PATCH", f"{plan.path}/scale", body, Json, content_type=MERGE, fieldManager=manager)
        case _:
            await sender.send("PATCH", plan.path, body, Json, content_type=MERGE)


async def get(api: Api, path: str, what: str) -> Json:
    """Return an object as it is.

    Raises:
        RefusedError: `NO_TARGET`: there is none.
    """
    thing = await read(api, path)
    if thing is None:
        raise RefusedError(RefusalReason.NO_TARGET, f"the cluster has no {what}")
    return thing


def refuse_moved(plan: Plan, now: Json) -> None:
    """Refuse a plan whose object has changed since, in anything but its status.

    Raises:
        RefusedError: `CONFLICT`.
    """
    meta = now["metadata"]
    words = ""
    if meta["uid"] != plan.uid:
        words = "it was made anew since"
    elif plan.generation and meta["generation"] != plan.generation:
        words = f"the plan was made on generation {plan.generation}, it is {meta['generation']} now"
    elif not plan.generation:
        for field in plan.fields:
            if value_at(now, field.path) != field.before:
                value = shown(value_at(now, field.path))
                words = (
                    f"{writer_of(now, field)} has set {field} to {value}, the plan was made on {shown(field.before)}"
                )
    if words:
        raise RefusedError(RefusalReason.CONFLICT, f"{plan.what}: {words}")


def refuse_other_generation(what: str, is_now: int, planned: int | None) -> None:
    """Refuse a plan that was made on another generation.

    Raises:
        RefusedError: `CONFLICT`.
    """
    if planned is not None and planned != is_now:
        words = f"{what}: the plan was made on generation {planned}, it is {is_now} now"
        raise RefusedError(RefusalReason.CONFLICT, words)


def plan_of(  # noqa: PLR0913 - a plan has so many parts
    thing: Json,
    path: str,
    what: str,
    fields: tuple[Field, ...],
    *,
    before: dict[str, str],
    after: dict[str, str],
    told: tuple[str, ...],
    mode: Mode = "merge",
    body: dict[str, Any] | None = None,
) -> Plan:
    """Return the plan to write fields of an object as it was read."""
    meta = thing["metadata"]
    return Plan(
        mode=mode,
        path=path,
        what=what,
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        version=meta["resourceVersion"],
        fields=tuple(field for field in fields if field.before != field.after),
        body=body or {},
        before=before,
        after=after,
        told=told,
    )


async def plan_restore(api: Api, of: Entry) -> Plan:
    """Plan to restore exactly the fields that the write of an entry changed.

    Raises:
        RefusedError: `CONFLICT`: someone else has written one of them since.
        PermanentError: that write leaves nothing to restore.
    """
    made = of.plan
    if made.mode not in {"merge", "scale"}:
        raise PermanentError(f"`{of.request}` leaves nothing to restore")
    now = await get(api, made.path, made.what)
    if now["metadata"]["uid"] != made.uid:
        raise RefusedError(RefusalReason.CONFLICT, f"{made.what} was made anew since")
    for field in made.fields:
        value = value_at(now, field.path)
        if value != field.after:
            words = f"{writer_of(now, field)} has set {field} to {shown(value)} since, we left {shown(field.after)}"
            raise RefusedError(RefusalReason.CONFLICT, f"{made.what}: {words}; it stays so")
        if stranger := stranger_at(now, field):
            words = f"{made.what}: {stranger} has written {field} since; it stays so"
            raise RefusedError(RefusalReason.CONFLICT, words)
    fields = tuple(field.reversed for field in made.fields)
    told = tuple(f"would restore {field} of {made.what} to {shown(field.after)}" for field in fields)
    return plan_of(
        now, made.path, made.what, fields, before=of.after, after=made.before, told=told, mode=made.mode
    )  # fmt: skip
