"""Small switches: a flag or the whole text of a configuration, the colour a service leads to, a node's cordon."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import UNSET

from runbooks.adapters.kubernetes.api import Api
from runbooks.adapters.kubernetes.edit import get, plan_of
from runbooks.adapters.kubernetes.fields import Field, Json, fields_between, shown, value_at
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import DOMAIN, ConfigMap, Items, Meta, Pod
from runbooks.adapters.kubernetes.owners import gitops
from runbooks.adapters.kubernetes.targets import Target, Targets
from runbooks.changes import Cordon, RestoreConfig, SetFlag, SwitchService, target_of
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

LAST_GOOD: Final = "-last-good"
"""The last good contents of a ConfigMap are kept in one of the same name with this behind it."""
COLOUR_LABELS: Final = ("colour", DOMAIN + "serves", "app.kubernetes.io/name")
"""The part of a service's selector that names a colour; the first that it has. All but `colour` are `NAME-COLOUR`."""
FLAG: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
VALUE_MAX: Final = 4096
"""Letters of a flag's value."""

Switch = SetFlag | RestoreConfig | SwitchService | Cordon


class Switcher:
    """Plans switches."""

    def __init__(self, api: Api, targets: Targets) -> None:
        """Read through `api` what `targets` allow."""
        self._api = api
        self._targets = targets

    async def plan(self, change: Switch) -> Plan:
        """Plan a switch.

        Raises:
            RefusedError: not on the allow-list, owned by somebody else, or it would lead nowhere.
        """
        target = self._targets.find(target_of(change))
        thing = await get(self._api, target.path, str(target))
        if not isinstance(change, Cordon) and (owner := gitops(_meta(thing))):
            raise RefusedError(RefusalReason.OWNED, f"{target} belongs to {owner}")
        match change:
            case SetFlag():
                return _set_flag(target, thing, change)
            case RestoreConfig():
                return await self._restore(target, thing)
            case SwitchService():
                return await self._switch(target, thing, change.colour)
            case Cordon():
                return _cordon(target, thing)

    async def _restore(self, target: Target, thing: Json) -> Plan:
        good = await get(self._api, f"{target.path}{LAST_GOOD}", f"{target}{LAST_GOOD}")
        if not good.get("data"):
            raise RefusedError(RefusalReason.NO_TARGET, f"{target}{LAST_GOOD} holds nothing to restore")
        fields = fields_between(thing.get("data", {}), good["data"], ("data",))
        names = ", ".join(field.path[-1] for field in fields) or "nothing"
        version = good["metadata"]["resourceVersion"]
        return plan_of(
            thing, target.path, str(target), fields,
            before={"changed": names}, after={"changed": names, "last_good": version},
            told=(f"would restore {names} of {target} from {target.name}{LAST_GOOD}",),
        )  # fmt: skip

    async def _switch(self, target: Target, thing: Json, colour: str) -> Plan:
        selector = thing["spec"].get("selector") or {}
        label = next((name for name in COLOUR_LABELS if name in selector), "")
        if not label:
            words = f"the selector of {target} names no colour: it has none of {', '.join(COLOUR_LABELS)}"
            raise RefusedError(RefusalReason.NO_TARGET, words)
        value = colour if label == COLOUR_LABELS[0] else f"{target.name}-{colour}"
        query = ",".join(f"{name}={one}" for name, one in {**selector, label: value}.items())
        path = f"/api/v1/namespaces/{target.namespace}/pods"
        pods = [pod for pod in (await self._api.get(path, Items[Pod], labelSelector=query)).items if pod.ready]
        if not pods:
            words = f"no ready replica has {label}={value}: {target} would lead nowhere"
            raise RefusedError(RefusalReason.NO_TARGET, words)
        field = Field(path=("spec", "selector", label), before=selector[label], after=value)
        names = ", ".join(pod.metadata.name for pod in pods)
        return plan_of(
            thing, target.path, str(target), (field,),
            before={"colour": str(selector[label])}, after={"colour": value},
            told=(f"would lead {target} from {selector[label]} to {value}: {names}",),
        )  # fmt: skip


def _set_flag(target: Target, thing: Json, change: SetFlag) -> Plan:
    if not FLAG.fullmatch(change.flag) or len(change.value) > VALUE_MAX:
        raise RefusedError(
            RefusalReason.NO_TARGET, f"{shown(change.flag)} of {target} is no flag, or its value too long"
        )
    if change.flag in (thing.get("binaryData") or {}):
        raise RefusedError(RefusalReason.NOT_ALLOWED, f"{change.flag} of {target} is binary: it is left alone")
    path = ("data", change.flag)
    old = value_at(thing, path)
    return plan_of(
        thing, target.path, str(target), (Field(path=path, before=old, after=change.value),),
        before={change.flag: "" if old is UNSET else shown(old)}, after={change.flag: shown(change.value)},
        told=(f"would set {change.flag} of {target} from {shown(old)} to {shown(change.value)}",),
    )  # fmt: skip


def _cordon(target: Target, thing: Json) -> Plan:
    path = ("spec", "unschedulable")
    old = value_at(thing, path)
    return plan_of(
        thing, target.path, str(target), (Field(path=path, before=old, after=True),),
        before={"cordoned": "true" if old is True else "false"}, after={"cordoned": "true"},
        told=(f"would cordon {target}" if old is not True else f"{target} is cordoned already",),
    )  # fmt: skip


def _meta(thing: Json) -> Meta:
    return msgspec.convert(thing, ConfigMap).metadata
