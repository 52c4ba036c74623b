"""Fields of an object: what of it a write changes, from what to what, and who else has written there.

Objects are plain JSON values here. A write is kept as its fields with their values before and after, so that what was
done can be told from the object afterwards, and be restored exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from runbooks.adapters.kubernetes.api import FIELD_MANAGER
from runbooks.adapters.kubernetes.objects import ManagedFields

Json = dict[str, Any]
"""An object as the API server writes it."""

_QUOTED: Final = re.compile(r'conflict with "([^"]+)"')


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field with its value before and after a write; a value that is not there is unset."""

    path: tuple[str, ...]
    before: Any = UNSET
    after: Any = UNSET

    @property
    def reversed(self) -> Field:
        """The field as taking the write back would change it."""
        return Field(path=self.path, before=self.after, after=self.before)

    def __str__(self) -> str:
        return ".".join(self.path)


def value_at(thing: object, path: Iterable[str]) -> Any:
    """Return the value at a path; unset where there is none."""
    for name in path:
        if not isinstance(thing, Mapping) or name not in thing:
            return UNSET
        thing = thing[name]
    return thing


def fields_between(before: object, after: object, path: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """Return what changes from one value to another: maps are compared key by key, lists as a whole."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [*before, *(name for name in after if name not in before)]
        return tuple(
            field
            for name in names
            for field in fields_between(value_at(before, (name,)), value_at(after, (name,)), (*path, name))
        )
    return () if before == after else (Field(path=path, before=before, after=after),)


def merge_patch(fields: Iterable[Field]) -> Json:
    """Return the JSON merge patch (RFC 7396) that gives the fields their values after."""
    patch: Json = {}
    for field in fields:
        here = patch
        for name in field.path[:-1]:
            here = here.setdefault(name, {})
        here[field.path[-1]] = None if field.after is UNSET else field.after
    return patch


def are_left(thing: object, fields: Iterable[Field]) -> bool:
    """Tell whether every field has its value after."""
    return all(value_at(thing, field.path) == field.after for field in fields)


def managers_of(thing: Json) -> tuple[ManagedFields, ...]:
    """Return who has written which fields of an object."""
    return msgspec.convert(value_at(thing, ("metadata", "managedFields")) or (), tuple[ManagedFields, ...])


def is_ours(manager: str) -> bool:
    """Tell whether a field manager is one of ours: `tapewatch`, or `tapewatch-3` where it carries the epoch."""
    epoch = manager.removeprefix(f"{FIELD_MANAGER}-")
    return manager == FIELD_MANAGER or (epoch != manager and epoch.isdigit())


def ours_wrote(thing: Json, field: Field) -> bool:
    """Tell whether a field is owned by us now."""
    return any(is_ours(one.manager) and one.holds(*field.path) for one in managers_of(thing))


def stranger_at(thing: Json, field: Field) -> str:
    """Return who else has written a field since we did; empty when nobody has.

    Whoever changes a single value takes it over, so a single value that somebody else owns was written after us. Below
    a list many own something, and only the times tell. (Writes to the scale subresource bear no time.)
    """
    managers = [one for one in managers_of(thing) if one.holds(*field.path)]
    others = [one for one in managers if not is_ours(one.manager)]
    if isinstance(value_at(thing, field.path), list | dict):
        ours_at = max((one.time for one in managers if is_ours(one.manager)), default="")
        others = [one for one in others if one.time > ours_at]
    return max(others, key=lambda one: one.time).manager if others else ""


def writer_of(thing: Json, field: Field) -> str:
    """Return who wrote a field last, in words."""
    managers = [one for one in managers_of(thing) if one.holds(*field.path) and not is_ours(one.manager)]
    return max(managers, key=lambda one: one.time).manager if managers else "someone"


def strangers_in(causes: Sequence[str]) -> list[str]:
    """Return the foreign field managers in the causes of a conflict; a cause that names none is foreign as a whole."""
    named = {name for cause in causes for name in _QUOTED.findall(cause) or [cause]}
    return sorted(name for name in named if not is_ours(name))


def shown(value: Any) -> str:
    """Write a value for people: short, on one line."""
    if value is UNSET:
        return "nothing"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line of a timeline
