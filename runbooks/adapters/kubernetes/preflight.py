"""What must be so before anything is touched: the right cluster, a version we know, every right we use.

Each failure is one sentence that says what to do. Missing rights are asked for all together and named all at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from kernel.errors import PermanentError, TemporaryError
from runbooks.adapters.kubernetes.api import Api, ApiError, ForbiddenError, GoneError
from runbooks.adapters.kubernetes.lease import NAME
from runbooks.adapters.kubernetes.ledger import NAMESPACE
from runbooks.adapters.kubernetes.objects import Meta
from runbooks.adapters.kubernetes.switches import LAST_GOOD
from runbooks.adapters.kubernetes.targets import Target, Targets
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

MINOR_LEAST: Final = 30
"""Older servers have no ValidatingAdmissionPolicy (stable since 1.30), so nothing would fence a deposed leader."""
MINOR_TESTED: Final = (34, 37)
"""The official client speaks 1.37; the API it uses here has not changed since 1.34."""
_DIGITS: Final = re.compile(r"\d+")


class Right(NamedTuple):
    """One thing we must be allowed to do."""

    verb: str
    resource: str
    """With its group and subresource: `deployments.apps/scale`, `pods/eviction`."""
    namespace: str = ""
    name: str = ""
    """Empty: any."""
    needed: bool = True
    """Without the others only some of the actions are refused, each when it is asked for."""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{' ' + self.name if self.name else ''}{where}"


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and nothing speaks against beginning."""

    cluster_id: str
    version: str
    warnings: tuple[str, ...] = ()


class _Object(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    major: str = ""
    minor: str = ""
    git_version: str = ""


class _Answer(msgspec.Struct, frozen=True):
    allowed: bool = False


class _Review(msgspec.Struct, frozen=True):
    status: _Answer = _Answer()


async def preflight(
    api: Api, targets: Targets, *, cluster_id: str, namespace: str = NAMESPACE, writes: bool = True
) -> Preflight:
    """Look before anything is touched.

    Args:
        api: a connection to the cluster.
        targets: the allow-list.
        cluster_id: the uid of the namespace kube-system of the only cluster we may touch; empty: not pinned.
        namespace: where the Lease and the ledger are.
        writes: whether the rights to write are asked for, too.

    Raises:
        RefusedError: `WRONG_CLUSTER`.
        PermanentError: the version is too old, or rights are missing; names all of them.
        TemporaryError: no answer.
    """
    found_id = await cluster_uid(api)
    if cluster_id and found_id != cluster_id:
        words = f"{api.url} is the cluster {found_id}, the settings name {cluster_id}: nothing is touched there"
        raise RefusedError(RefusalReason.WRONG_CLUSTER, words)
    version, warnings = await _version(api)
    if not cluster_id:
        warnings.append(f"the cluster is not pinned: set its id to {found_id}")
    missing = await missing_rights(api, rights(targets, namespace=namespace, writes=writes))
    if needed := [right for right in missing if right.needed]:
        listed = "; ".join(str(right) for right in needed)
        raise PermanentError(f"{len(needed)} rights are missing at {api.url}: {listed}")
    warnings += [f"without the right to {right} some actions are refused" for right in missing]
    return Preflight(cluster_id=found_id, version=version, warnings=tuple(warnings))


async def cluster_uid(api: Api) -> str:
    """Return what tells one cluster from another: the uid of its namespace kube-system.

    Raises:
        PermanentError: our credentials are not accepted, or we may not read it.
        TemporaryError: no answer.
    """
    try:
        return (await api.get("/api/v1/namespaces/kube-system", _Object)).metadata.uid
    except ForbiddenError as error:
        if error.code == 401:  # noqa: PLR2004 - HTTP's own number
            words = f"{api.url} does not accept the credentials of the kubeconfig (expired?): renew them"
        else:
            words = f"{api.url} does not let us read its id: grant `get` on the namespace kube-system"
        raise PermanentError(words) from error
    except GoneError as error:
        raise PermanentError(f"{api.url} is no Kubernetes API server: it has no namespace kube-system") from error
    except ApiError:
        raise
    except PermanentError as error:
        raise PermanentError(f"{api.url} does not answer like a Kubernetes API server: {error}") from error
    except TemporaryError as error:
        raise TemporaryError(f"the cluster cannot be reached: {error}", retry_after=error.retry_after) from error


async def _version(api: Api) -> tuple[str, list[str]]:
    seen = await api.get("/version", _Version)
    digits = _DIGITS.match(seen.minor)
    minor = int(digits.group()) if digits else 0
    if seen.major != "1" or minor < MINOR_LEAST:
        raise PermanentError(
            f"{api.url} is Kubernetes {seen.git_version}; 1.{MINOR_LEAST} is the oldest that is fenced"
        )
    low, high = MINOR_TESTED
    if low <= minor <= high:
        return seen.git_version, []
    return seen.git_version, [f"Kubernetes {seen.git_version} is not among what was tested (1.{low} to 1.{high})"]


def rights(targets: Targets, *, namespace: str = NAMESPACE, writes: bool = True) -> Sequence[Right]:
    """Return every right that acting on the allow-list takes."""
    wanted: list[Right] = [Right("get", "namespaces", name="kube-system")]
    for one in targets.namespaces:
        seen = ("pods", "replicasets.apps", "horizontalpodautoscalers.autoscaling", "poddisruptionbudgets.policy")
        kinds = {target.kind for target in targets.workloads if target.namespace == one}
        of_kinds = [f"{kind.lower()}s.apps" for kind in sorted(kinds)]
        wanted += [Right("list", resource, one) for resource in (*seen, *of_kinds)]
        if writes and any(target.namespace == one for target in targets.workloads):
            wanted += [Right("create", "pods/eviction", one), Right("patch", "pods", one), Right("delete", "pods", one)]
    for target in (*targets.workloads, *targets.others):
        wanted += _of_target(target, writes=writes)
    if targets.any_node:
        wanted += [Right("get", "nodes"), Right("list", "nodes")] + ([Right("patch", "nodes")] if writes else [])
    if writes:
        wanted += [Right(verb, "leases.coordination.k8s.io", namespace, NAME) for verb in ("get", "patch")]
        wanted += [Right(verb, "configmaps", namespace) for verb in ("create", "get", "list", "patch", "delete")]
    return list(dict.fromkeys(wanted))


def _of_target(target: Target, *, writes: bool) -> Iterable[Right]:
    where, name = target.namespace, target.name
    resource = {
        "Deployment": "deployments.apps",
        "StatefulSet": "statefulsets.apps",
        "ConfigMap": "configmaps",
        "Service": "services",
        "CronJob": "cronjobs.batch",
        "Node": "nodes",
    }[target.kind]
    yield Right("get", resource, where, name)
    if target.kind == "ConfigMap":
        yield Right("get", resource, where, name + LAST_GOOD)
    if not writes:
        return
    match target.kind:
        case "Deployment":
            yield Right("patch", resource, where, name)
            yield Right("patch", f"{resource}/scale", where, name, needed=False)
        case "CronJob":
            yield Right("create", "jobs.batch", where)
        case "ConfigMap" | "Service" | "Node":
            yield Right("patch", resource, where, name)
        case _:
            return  # a StatefulSet is a single writer here: its pods are ended, itself it is left alone


async def missing_rights(api: Api, wanted: Sequence[Right]) -> Sequence[Right]:
    """Ask the server for each right; return those that are missing, in order.

    Raises:
        TapewatchError: it cannot be asked.
    """
    allowed = await asyncio.gather(*(_allowed(api, right) for right in wanted))
    return [right for right, granted in zip(wanted, allowed, strict=True) if not granted]


async def _allowed(api: Api, right: Right) -> bool:
    named, _, subresource = right.resource.partition("/")
    resource, _, group = named.partition(".")
    attributes = {
        "verb": right.verb, "group": group, "resource": resource, "subresource": subresource,
        "namespace": right.namespace, "name": right.name,
    }  # fmt: skip
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return (await api.send("POST", path, body, _Review)).status.allowed
