"""Running a job once, from the template of a CronJob. Its name comes from the key, so it cannot be run twice."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from kernel.errors import TemporaryError
from kernel.time import SECOND
from runbooks.adapters.kubernetes.api import Api, ConflictError
from runbooks.adapters.kubernetes.edit import get
from runbooks.adapters.kubernetes.fields import Json
from runbooks.adapters.kubernetes.finding import is_applied, read
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.writer import Sender
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

DEFAULTS: Final[dict[str, Any]] = {"activeDeadlineSeconds": 600, "backoffLimit": 0, "ttlSecondsAfterFinished": 86_400}
"""What a template that says nothing gets: a job that hangs ends, a failed one is not repeated, a finished one goes."""
LABELS: Final = {"app.kubernetes.io/managed-by": "tapewatch"}
_STEM: Final = 41
"""Letters of a job's name before the digest: a pod's name and labels hold 63."""


class Run:
    """A deed that runs a job."""

    def __init__(self, api: Api, targets: Targets, job: str, key: str) -> None:
        """Run the CronJob `job` of the allow-list for `key`."""
        self._api = api
        self._targets = targets
        self._job = job
        self._key = key
        self.request = f"run the job {job}"

    async def plan(self, generation: int | None) -> Plan:
        """Make the job out of its template; there is no generation a job could depend on."""
        del generation
        target = self._targets.find(f"job:{self._job}")
        cron = await get(self._api, target.path, str(target))
        name = f"{target.name[:_STEM].rstrip('-.')}-{hashlib.sha256(self._key.encode()).hexdigest()[:10]}"
        path = f"/apis/batch/v1/namespaces/{target.namespace}/jobs/{name}"
        return Plan(
            mode="create", path=path, what=f"{target.namespace}/Job/{name}", uid=cron["metadata"]["uid"],
            version=cron["metadata"]["resourceVersion"], body=_job(name, target.namespace, cron),
            before={"job": target.name}, after={"job": name},
            told=(f"would run {target} once, as the Job {name}",),
        )  # fmt: skip

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Create the job.

        Raises:
            RefusedError: `CONFLICT`: there is one of that name that is not ours.
        """
        try:
            await sender.send("POST", plan.path.rpartition("/")[0], plan.body, Json)
        except ConflictError as error:
            there = await read(self._api, plan.path)
            if there is None:
                raise TemporaryError(f"{plan.what} was there and is gone", retry_after=SECOND) from error
            if not is_applied(plan, sender.stamp.key, there):
                words = f"there is a {plan.what} already that was not made for this"
                raise RefusedError(RefusalReason.CONFLICT, words) from error
        return dict(plan.after)


def _job(name: str, namespace: str, cron: Json) -> Json:
    template = cron["spec"]["jobTemplate"]
    meta = template.get("metadata", {})
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron["metadata"]["name"],
        "uid": cron["metadata"]["uid"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**meta.get("labels", {}), **LABELS},
            "annotations": {**meta.get("annotations", {}), "cronjob.kubernetes.io/instantiate": "manual"},
            # Not as its controller: the CronJob would count it among its own, and remove it with them.
            "ownerReferences": [owner],
        },
        "spec": {**DEFAULTS, **template["spec"]},
    }
