"""A replica that is away on purpose: taken out of the balance before its process is replaced, put in again after.

While it is away it is marked (`tapewatch_replica_away`), so that no rule takes the change of its process for its death.
The mark has an end: a process that ends once more, or is not ready in time, is a dead one like any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from control.calls import call
from control.child import Child
from kernel.errors import TapewatchError, TemporaryError

IN_FLIGHT_S: Final = 5.0
"""How long requests that are under way are waited for; a gateway answers each within five seconds."""
SETTLE_S: Final = 2.0
"""For so long it stays marked after it is back: two scrapes."""
_LOOK_S: Final = 0.1
_AGAIN_S: Final = 1.0
_CALL_S: Final = 2.0


class Balance(Protocol):
    """What spreads requests over the replicas of a workload."""

    async def take_out(self, replica: str) -> bool:
        """Send it nothing new; returns once what was under way has ended, or was waited for long enough.

        False when somebody had taken it out before: then it is theirs to put in again.

        Raises:
            TapewatchError: the balancer does not do it.
        """
        ...

    async def put_in(self, replica: str) -> None:
        """Send to it again as soon as it is well.

        Raises:
            TapewatchError: the balancer does not do it.
        """
        ...


class EdgeBalance:
    """`Balance` of HAProxy before the gateways, by its host."""

    def __init__(self, url: str, secret: Callable[[], str]) -> None:
        """Remember where the edge's host answers, and how its secret is read; nothing is asked yet."""
        self._url: Final = f"{url}/admin/server"
        self._secret: Final = secret

    async def take_out(self, replica: str) -> bool:
        """See `Balance`."""
        mine = not (await self._ask("GET", f"?server={replica}"))["out"]
        if mine:
            await self._ask("POST", body={"server": replica, "state": "drain"})
        until_s = time.monotonic() + IN_FLIGHT_S
        while time.monotonic() < until_s:
            if not (await self._ask("GET", f"?server={replica}"))["sessions"]:
                break
            await asyncio.sleep(_LOOK_S)
        return mine

    async def put_in(self, replica: str) -> None:
        """See `Balance`."""
        await self._ask("POST", body={"server": replica, "state": "ready"})

    async def _ask(self, method: str, query: str = "", body: object = None) -> Any:
        try:
            token = self._secret()
        except OSError as error:
            raise TemporaryError(f"the admin secret cannot be read: {error.strerror}") from error
        return await asyncio.to_thread(call, method, self._url + query, token=token, body=body, timeout_s=_CALL_S)


@dataclass(eq=False)
class Leave:
    """One leave of one replica."""

    balance: Balance | None
    """What is to send to it again; None: nothing was told."""


class Leaves:
    """Who is away on purpose."""

    def __init__(self, log: Callable[..., None]) -> None:
        """Nobody is away. `log` is called with a level, a sentence and fields."""
        self._away: Final[dict[str, Leave]] = {}
        """Each with its latest leave: whoever ends an earlier one changes nothing."""
        self._log: Final = log

    def __contains__(self, replica: str) -> bool:
        """Tell whether it is away."""
        return replica in self._away

    async def begin(self, replica: str, balance: Balance | None) -> Leave:
        """Mark a replica and take it out of the balance, where there is one. A balancer that refuses stops nothing."""
        before = self._away.get(replica)
        owed = before.balance if before is not None else None  # that leave puts nothing in any more
        leave = self._away[replica] = Leave(balance or owed)
        if balance is None:
            return leave
        began_s = time.monotonic()
        try:
            if not await balance.take_out(replica) and owed is None:
                leave.balance = None
        except TapewatchError as error:
            self._log("warn", f"{replica} is replaced under requests, the balancer did not take it out: {error}")
        else:
            took_s = time.monotonic() - began_s
            self._log("info", f"{replica} was taken out of the balance within {took_s:.1f} s", replica=replica)
        return leave

    async def _put_in(self, leave: Leave, child: Child, until_s: float) -> None:
        """Have the balancer send to it again, asked until it does: nobody else would. One that ended is let go."""
        replica = child.slot.id
        while leave.balance is not None and self._away.get(replica) is leave:
            try:
                await leave.balance.put_in(replica)
                leave.balance = None
            except TapewatchError as error:
                if time.monotonic() > until_s or not child.running:
                    words = f"{replica} is back, and the balancer does not send to it: {error}"
                    self._log("error", words, replica=replica)
                    return
                await asyncio.sleep(_AGAIN_S)

    async def end(self, leave: Leave, child: Child, patience_s: float) -> None:
        """Put a replica in again once its new process is ready, has ended, or after `patience_s`; then unmark it."""
        replica, until_s = child.slot.id, time.monotonic() + patience_s
        while child.running and not child.ready and time.monotonic() < until_s:
            if self._away.get(replica) is not leave:
                return
            await asyncio.sleep(_LOOK_S)
        if self._away.get(replica) is not leave:
            return
        await self._put_in(leave, child, until_s)
        if child.ready:
            await asyncio.sleep(SETTLE_S)
        if self._away.get(replica) is leave:
            del self._away[replica]
