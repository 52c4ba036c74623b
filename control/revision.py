"""A revision of one replica: the configuration its role was given, with some settings changed, in a file of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control.addresses import write_atomically
from control.child import Slot
from control.config import RoleConfig
from kernel.errors import InputError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


def revision_of(slot: Slot, name: str, settings: Mapping[str, Any]) -> Slot:
    """Return what a replica runs under a revision: its configuration with `settings`, written beside the usual one.

    Args:
        slot: what the replica runs now; its last argument is the file of its configuration.
        name: the revision's, such as `2.1-bad`.
        settings: what differs; a table within it changes those settings that it names.

    Raises:
        InputError: the name is none, the replica has no such configuration, or it does not take those settings.
    """
    if not _NAME.fullmatch(name):
        raise InputError("revision", f"{name[:40]!r} is no name", right="write up to 40 of a-z, 0-9, dot and dash")
    usual = Path(slot.argv[-1])
    try:
        config = msgspec.json.decode(usual.read_bytes())
        unknown = sorted(set(settings) - set(RoleConfig.__struct_fields__))
        changed = msgspec.convert(_merged(config, settings), RoleConfig)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("settings", f"{slot.id} does not take them: {error}", right="see its configuration") from error
    if unknown:
        raise InputError("settings", f"{unknown[0][:40]!r} is none of a role's", right="see its configuration")
    path = usual.with_name(f"{usual.stem}.{name}{usual.suffix}")
    write_atomically(path, msgspec.json.format(msgspec.json.encode(changed), indent=2))
    return dataclasses.replace(slot, argv=(*slot.argv[:-1], str(path)), revision=name)


def _merged(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(config)
    for name, value in settings.items():
        had = config.get(name)
        merged[name] = _merged(had, value) if isinstance(had, dict) and isinstance(value, dict) else value
    return merged
