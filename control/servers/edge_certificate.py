"""Which certificate the edge shows, and how it is renewed while the edge runs.

Rule 1: the balancer reads a file of its own, `shown.pem`; `edge.pem` of the state is what it is offered. So what was
        refused is never what a restart would begin with.
Rule 2: one of the state's own authority is made anew once less than a share of its life is left. One that somebody
        else issued is never written over; whoever puts a new one in its place has it taken within seconds.
Rule 3: what is offered is put to the balancer's own check, then shown, then looked at over TLS. Where any of these
        fails the one before is shown on, and that is told: in the log, as a metric, by an alert.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from control.addresses import write_atomically
from control.servers.trial_authority import DAYS, TrialAuthority, pair_ends
from exchange.ports import Log
from kernel.errors import PermanentError, TapewatchError

SHOWN: Final = "shown.pem"
REFUSED: Final = "certificate-refused"
TAKEN: Final = "certificate-shown"
AGAIN_S: Final = 60.0
"""What was refused is tried again after so long: the balancer may have been too busy to answer."""
_ENDED: Final = "it has ended"


class Balancer(Protocol):
    """What shows a certificate: `control.servers.edge.Edge`."""

    def refusal(self, pem: bytes) -> str:
        """Return why the balancer would not take key and certificate, by its own check; nothing when it would."""
        ...

    def show(self, pem: bytes) -> None:
        """Show them to whoever connects from now on; returns once a new connection saw them.

        Raises:
            TapewatchError: it does not; the ones before are shown.
        """
        ...


class Certificates:
    """The certificate of one edge. Every method may block for seconds, and may be called from any thread."""

    def __init__(
        self,
        authority: TrialAuthority,
        directory: Path,
        balancer: Balancer,
        share: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read yet.

        Args:
            authority: who issues ours; its `edge` is the file that is offered.
            directory: the balancer's own; `shown.pem` lies there.
            balancer: it shows what is taken.
            share: of its life; with less left, ours is made anew.
            clock_s: seconds that only grow; waiting is counted by it.
        """
        self.shown: Final = directory / SHOWN
        self.taken: dict[str, int] = {"shown": 0, "refused": 0}
        """How many were shown while the balancer ran, and how many were refused."""
        self.why = ""
        """Why what is offered now is not shown; nothing while it is."""
        self._authority: Final = authority
        self._balancer: Final = balancer
        self._share: Final = share
        self._clock_s: Final = clock_s
        self._log: Log | None = None
        self._lock: Final = threading.Lock()
        self._last = b""
        """What lay in the offered file at the look before."""
        self._again_s = 0.0

    def log_to(self, log: Log) -> None:
        """Tell of what is shown and refused there from now on."""
        self._log = log

    def prepare(self) -> None:
        """Before the balancer runs: make ours where there is none or its end is near, and put it where it is read.

        Raises:
            PermanentError: what is offered is refused, and there is none from before to begin with.
        """
        with self._lock:
            try:
                self._authority.prepare(self._share)
                offered = self._authority.edge.read_bytes()
                why = self._balancer.refusal(offered)
                if not why and not _lasts(offered) and self.shown.exists() and _lasts(self.shown.read_bytes()):
                    why = _ENDED  # its own check does not mind, and what was refused while it ran is not begun with
            except (TapewatchError, OSError) as error:
                offered, why = b"", str(error)
            if not why:
                write_atomically(self.shown, offered, mode=0o600)
                return
            if not self.shown.exists():
                raise PermanentError(f"{self._authority.edge}: {why}")
            self._refused(offered, why)

    def turn(self) -> None:
        """Look at what is offered, and at how long it lasts; called about once a second while the balancer runs."""
        with self._lock:
            try:
                offered = self._authority.edge.read_bytes()
                if offered == self.shown.read_bytes():
                    self._last = offered
                    if not self._authority.is_due(self._share):
                        self.why = ""
                    elif self._clock_s() >= self._again_s:
                        self._take(self._authority.issue(dt.timedelta(days=DAYS)), instead=offered)
                elif offered != self._last:  # somebody may be writing it just now: it is taken at the next look
                    self._last, self._again_s = offered, 0.0
                elif self._clock_s() >= self._again_s:
                    self._take(offered)
            except (TapewatchError, OSError) as error:
                if self._clock_s() >= self._again_s:
                    self._refused(self._last, str(error))

    def renew(self) -> Mapping[str, object]:
        """Show a new one now, by a person's hand: what somebody else offers, or a new one of ours.

        Raises:
            PermanentError: it is refused; or there is nothing new, and ours to issue it is not.
        """
        with self._lock:
            offered = self._authority.edge.read_bytes()
            made = offered == self.shown.read_bytes()
            if made and not self._authority.is_ours():
                raise PermanentError(
                    f"{self._authority.edge} is shown already, and another authority issued it: put a new one there"
                )
            if made:
                self._take(self._authority.issue(dt.timedelta(days=DAYS)), instead=offered)
            else:
                self._take(offered)
            if self.why:
                raise PermanentError(f"the new certificate is refused, the one before is shown on: {self.why}")
            serial, ends_s = pair_ends(self.shown.read_bytes())
            return {"serial": serial, "not_after": ends_s, "issued": made}

    def _take(self, pem: bytes, *, instead: bytes | None = None) -> None:
        """Have a pair shown, or remember why not; a new one of ours is kept `instead` of what was offered until now."""
        try:
            serial, ends_s = pair_ends(pem)
            why = _ENDED if ends_s <= time.time() else self._balancer.refusal(pem)
            if not why:
                self._balancer.show(pem)
        except (TapewatchError, ValueError) as error:
            why = str(error)
        if why:
            self._refused(pem, why)
            return
        if instead is not None and self._authority.edge.read_bytes() == instead:  # nobody put another there meanwhile
            write_atomically(self._authority.edge, pem, mode=0o600)
        write_atomically(self.shown, pem, mode=0o600)
        self._last, self.why, self._again_s = pem, "", 0.0
        self.taken["shown"] += 1
        if self._log is not None:
            self._log.event(TAKEN, serial=serial, not_after=int(ends_s) * 1_000_000_000)

    def _refused(self, pem: bytes, why: str) -> None:
        first = why != self.why
        self._last, self.why, self._again_s = pem or self._last, why, self._clock_s() + AGAIN_S
        self.taken["refused"] += 1
        if first and self._log is not None:
            self._log.event(REFUSED, severity="error", file=str(self._authority.edge), why=why)


def _lasts(pem: bytes) -> bool:
    """Tell whether there is a certificate that has not ended."""
    try:
        return pair_ends(pem)[1] > time.time()
    except ValueError:
        return False
