"""Fencing: every write carries the epoch of the leader that decided on it, and the API server refuses an old one.

The server compares the epoch with the Lease (an admission policy of `deploy/kubernetes/base/access`). Its copy of the
Lease follows the Lease by some milliseconds. So whoever is elected first makes sure that the old epoch is refused by
now, and acts only then: the leader before can no longer change anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND
from runbooks.adapters.kubernetes.api import FIELD_MANAGER, Api, ForbiddenError, GoneError
from runbooks.adapters.kubernetes.objects import EPOCH, KEY
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

FENCED: Final = "fenced: "
"""How the admission policy's refusals begin."""
WITHIN_S: Final = 3.0
"""How long the API server's copy of the Lease is waited for; it follows within milliseconds."""
_STEP_S: Final = 0.05
_NOBODY: Final = "tapewatch-fence-probe"
"""A pod that is never there: its eviction is judged by the policy, and then there is nothing to evict."""


class Fencing(StrEnum):
    """What becomes of a leader whose epoch the API server does not guard."""

    REQUIRED = "required"
    """It does not act."""
    PREFERRED = "preferred"
    """It acts, and says so: for test clusters, and clusters without admission policies."""


class Stamp(msgspec.Struct, frozen=True):
    """What every write bears: for which key it is done, and in which epoch it was decided."""

    key: str
    epoch: int
    dry: bool = False
    """The server checks everything and keeps nothing."""

    @property
    def annotations(self) -> dict[str, str]:
        """What is written to the object."""
        return {EPOCH: str(self.epoch), KEY: self.key}

    @property
    def writes_as(self) -> str:
        """A field manager that carries the epoch, where an object's annotations do not reach the policy (scale)."""
        return f"{FIELD_MANAGER}-{self.epoch}"

    @property
    def query(self) -> dict[str, str]:
        """What goes into the query of every write."""
        return {"dryRun": "All"} if self.dry else {}

    def on(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a body with the stamp."""
        meta = body.get("metadata", {})
        return {
            **body,
            "metadata": {**meta, "annotations": {**meta.get("annotations", {}), **self.annotations}},
        }


def _always() -> str:
    return ""


class Fence:
    """Knows the epoch to stamp, and whether this controller may act."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        why_not: Callable[[], str] = _always,
        fencing: Fencing = Fencing.REQUIRED,
        within_s: float = WITHIN_S,
    ) -> None:
        """Probe in `namespace` of the plant. `why_not` says why this controller does not lead; empty: it leads."""
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods/{_NOBODY}/eviction"
        self._namespace = namespace
        self._why_not = why_not
        self._fencing = fencing
        self._within_s = within_s
        self.epoch = 0
        self.stands: bool | None = None
        """Whether the server refuses old epochs; None: not found out yet."""

    def stamp(self, key: str, *, dry: bool = False) -> Stamp:
        """Return what a write for `key` bears that is decided on now."""
        return Stamp(key, self.epoch, dry)

    def check(self, stamp: Stamp) -> None:
        """Refuse to send when this controller does not lead, or leads anew since the write was decided on.

        Raises:
            RefusedError: `NOT_LEADER`.
        """
        why = self._why_not()
        if not why and stamp.epoch != self.epoch:
            why = f"this was decided in epoch {stamp.epoch}, it is {self.epoch} now"
        if why:
            raise RefusedError(RefusalReason.NOT_LEADER, f"nothing was sent: {why}")

    async def raise_(self, epoch: int) -> None:
        """Return once writes of the epochs before `epoch` are refused; from then on writes are stamped with it.

        Raises:
            RefusedError: `NOT_LEADER`: the server refuses no old epoch, and fencing is required.
            PermanentError: we may not even ask.
            TemporaryError: no answer, or the server does not take this epoch for the leader's (yet).
        """
        deadline = time.monotonic() + self._within_s
        while True:
            # The old epoch first: while it passes, the new one may be refused for the same reason, an old copy.
            old, new = await self._passes(epoch - 1), await self._passes(epoch)
            if not old and new:
                self.epoch, self.stands = epoch, True
                return
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_STEP_S)
        if not new:
            raise TemporaryError(f"the API server does not take epoch {epoch} for the leader's", retry_after=SECOND)
        self.stands = False
        if self._fencing is Fencing.REQUIRED:
            words = (
                f"the API server accepts a write of epoch {epoch - 1} although {epoch} leads: no fencing policy holds "
                "for this account; apply deploy/kubernetes/base/access, or set fencing to preferred"
            )
            raise RefusedError(RefusalReason.NOT_LEADER, words)
        self.epoch = epoch

    async def _passes(self, epoch: int) -> bool:
        """Tell whether a write of an epoch passes the server's admission."""
        meta = {"name": _NOBODY, "namespace": self._namespace}
        body = Stamp("", epoch).on({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta})
        try:
            await self._api.send("POST", self._path, body, msgspec.Raw, dryRun="All")
        except GoneError:
            return True
        except ForbiddenError as error:
            if FENCED in error.refused.message:
                return False
            raise PermanentError(
                f"whether old epochs are refused cannot be found out: {error.refused.message}; "
                f"grant `create pods/eviction` in {self._namespace}"
            ) from error
        return True
