"""What can be broken in a local estate on purpose, and how it is mended by hand.

Three ways: a signal through the estate, a fault inside a role (it forgets it when restarted), or the load's rate.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from control.addresses import load_addresses, write_atomically
from control.calls import call
from control.child import now
from control.config import load_config
from control.errors import NotFoundError, RefusedByRailError
from control.failpoints import Failpoint
from control.fault import Change, Fault, Plant
from control.layout import Layout
from control.state_dir import is_held, read_secret
from kernel.errors import InputError, TapewatchError, TemporaryError
from kernel.time import Instant


def _signal(name: str) -> Change:
    def send(plant: Plant, target: str, _: str) -> None:
        plant.estate("/v1/signal", {"replica": target, "signal": name})

    return send


def _nothing(_: Plant, __: str, ___: str) -> None:
    """There is nothing to take back by hand: whoever owns the process starts it again."""


_WHERE: Final = "`tapewatch fault list` says where each strikes"


class RoleFault(TypedDict):
    """How a fault inside a process is injected, cleared and looked at."""

    inject: Change
    clear: Change
    suffered: Callable[[Plant, str], bool]


def role_fault(name: str) -> RoleFault:
    """Return how a fault inside a process is injected, cleared and looked at: over its own interface."""

    def inject(plant: Plant, target: str, value: str) -> None:
        try:
            plant.role("POST", target, "/admin/faults", {"name": name, "value": _typed(value)})
        except NotFoundError as error:
            raise InputError("target", f"{target} knows no {name}", right=_WHERE) from error

    def clear(plant: Plant, target: str, _: str) -> None:
        plant.role("DELETE", target, f"/admin/faults?name={name}")

    def suffered(plant: Plant, target: str) -> bool:
        try:
            told = plant.role("GET", target, "/admin/faults")
        except NotFoundError:
            told = {"known": (), "active": ()}
        if name not in told["known"]:
            raise InputError("target", f"{target} knows no {name}", right=_WHERE)
        return name in told["active"]

    return {"inject": inject, "clear": clear, "suffered": suffered}


class KillFault(TypedDict):
    """How a process is killed."""

    inject: Change
    clear: Change
    strikes: str


def kill_fault(strikes: str) -> KillFault:
    """Return how a process whose name begins so is killed (SIGKILL); nothing clears it, its runbook starts it anew."""
    return {"inject": _signal("KILL"), "clear": _nothing, "strikes": strikes}


def _hold(*, hold: bool) -> Change:
    def change(plant: Plant, target: str, _: str) -> None:
        plant.estate("/v1/hold", {"workload": target, "hold": hold})

    return change


def _make_signal(*, on: bool) -> Change:
    def change(plant: Plant, target: str, value: str) -> None:
        plant.estate("/v1/signals", {"alert": value or target, "on": on})

    return change


def _rate(plant: Plant, target: str, value: str) -> None:
    plant.role("POST", target, "/admin/rate", {"rate": number(value) * _usual(plant, target)})


def _usual_rate(plant: Plant, target: str, _: str) -> None:
    plant.role("POST", target, "/admin/rate", {"rate": _usual(plant, target)})


def _surges(plant: Plant, target: str) -> bool:
    return float(plant.role("GET", target, "/v1/rate")["rate"]) != _usual(plant, target)


def _usual(plant: Plant, target: str) -> float:
    return load_config(plant.layout.config(target)).load_rate_per_s


def _arm(plant: Plant, _: str, value: str) -> None:
    points = sorted({*_armed(plant.layout), *value.split(",")})
    write_atomically(failpoints(plant.layout), msgspec.json.encode(points))


def _disarm(plant: Plant, _: str, __: str) -> None:
    failpoints(plant.layout).unlink(missing_ok=True)


def failpoints(layout: Layout) -> Path:
    """Return the file that lists where control shall die."""
    return layout.root / "control" / "failpoints.json"


def record(layout: Layout) -> Path:
    """Return the file that keeps which faults were injected and when, one JSON line each, for reports."""
    return layout.faults


def _record(layout: Layout, fault: Fault, target: str, value: str, at: Instant) -> None:
    line = msgspec.json.encode({"name": fault.name, "target": target, "value": value, "at": at})
    record(layout).parent.mkdir(parents=True, exist_ok=True)
    with record(layout).open("ab") as file:
        file.write(line + b"\n")


def _armed(layout: Layout) -> list[str]:
    try:
        return msgspec.json.decode(failpoints(layout).read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):
        return []


def _typed(value: str) -> str | float | None:
    try:
        return float(value)
    except ValueError:
        return value or None


def number(value: str) -> float:
    """Read a fault's size.

    Raises:
        InputError: it is no number.
    """
    try:
        return float(value)
    except ValueError as error:
        raise InputError("value", f"{value!r} is no number", right="give one such as 3 or 0.5") from error


_RUNBOOK: Final = "its alert's runbook restarts it"
_CATALOG: Final = (
    Fault("gateway-hang", "A gateway is stopped by SIGSTOP: it holds its port and answers nothing.", _RUNBOOK,
          "gateway-1", "", _signal("STOP"), _signal("CONT"), strikes="gateway-"),
    Fault("gateway-kill", "A gateway is killed by SIGKILL.", _RUNBOOK, "gateway-1", "", **kill_fault("gateway-")),
    Fault("engine-crash", "The engine is killed by SIGKILL.", _RUNBOOK, "engine-1", "", **kill_fault("engine-")),
    Fault("engine-hang", "The engine is stopped by SIGSTOP: it holds its ports and answers nothing.", _RUNBOOK,
          "engine-1", "", _signal("STOP"), _signal("CONT"), strikes="engine-"),
    Fault("load-surge", "The load generator sends that many times its usual rate.", "clearing; gateways scale out",
          "load-1", "12", _rate, _usual_rate, _surges, "load-"),
    Fault("settlement-slow", "Settlement waits that many seconds before each commit.", "a restart of settlement",
          "settlement-1", "2", **role_fault("settlement-slow")),
    Fault("feed-stall", "Market data publishes nothing more, and stays connected.", "a restart of market-data",
          "market-data-1", "1", **role_fault("feed-stall")),
    Fault("feed-gap", "Market data drops one message of that symbol.", "a person resumes the halted symbol",
          "market-data-1", "", **role_fault("feed-gap")),
    Fault("engine-slow-sync", "Each fsync takes so many seconds longer.", "clearing; no runbook mends it",
          "engine-1", "0.2", **role_fault("engine-slow-sync")),
    Fault("engine-sync-creep", "Each fsync takes so many milliseconds longer with every second, up to half a second.",
          "clearing; no runbook mends it", "engine-1", "1", **role_fault("engine-sync-creep")),
    Fault("memory-leak", "A process keeps so many MiB more every minute, up to 256; settlement, market data or engine.",
          "a restart of the process", "settlement-1", "12", **role_fault("memory-leak")),
    Fault("feed-conflation", "Only that share of the feed's updates goes out, the rest within others: no gap shows.",
          "a restart of market-data", "market-data-1", "0.5", **role_fault("feed-conflation")),
    Fault("prometheus-down", "Prometheus is killed and held down.", "clearing", "prometheus", "",
          _hold(hold=True), _hold(hold=False), strikes="prometheus"),
    Fault("signal", "Series of replicas and symbols named made-… let that alert fire; the plant is whole.", "clearing",
          "GatewayDown", "", _make_signal(on=True), _make_signal(on=False)),
    Fault("control-crash", "Control kills itself at that point of its next action (before-effect, after-effect).",
          "it happens once; the estate starts control again", "control-1", "before-effect", _arm, _disarm,
          lambda plant, _: failpoints(plant.layout).exists(), "control-"),
)  # fmt: skip
_LOOK_S: Final = 1.0
_NUMBERS: Final = {
    "load-surge": 1_000.0, "settlement-slow": 3_600.0, "engine-slow-sync": 60.0,
    "engine-sync-creep": 1_000.0, "memory-leak": 10_000.0, "feed-conflation": 1.0,
}  # fmt: skip
"""Faults whose value is a number, and the most it may be: times, seconds, seconds; ms a second, MiB a minute, share."""
FAULTS: Final = {fault.name: fault for fault in _CATALOG}
_LOCAL_ONLY: Final = frozenset({"gateway-hang", "gateway-kill", "engine-crash", "engine-hang"})
"""They name a process of the estate's own; on Kubernetes there are pods."""


def connect(state: Path) -> Plant:
    """Return the estate that runs in a state directory.

    Raises:
        TemporaryError: none runs there, or its secret is not ours to read.
        InputError: its address book or its secret is broken.
    """
    layout = Layout(state.absolute())
    addresses = load_addresses(layout.addresses)
    if not is_held(layout):
        raise TemporaryError(
            f"the estate of {layout.root} (pid {addresses.pid}) ended without stopping; `tapewatch up` starts it anew"
        )
    try:
        admin = read_secret(layout, "admin")
    except OSError as error:
        raise TemporaryError(f"the admin secret of {layout.root} cannot be read: {error.strerror}") from error
    return Plant(layout, addresses, admin)


def find(name: str, place: str = "local") -> Fault:
    """Return a fault by name, of those of that kind of estate.

    Raises:
        InputError: there is none of that name.
    """
    known = catalog(place)
    fault = known.get(name)
    if fault is None:
        raise InputError("fault", f"{name!r} is not known", right=f"there are {', '.join(known)}")
    return fault


def catalog(place: str) -> Mapping[str, Fault]:
    """Return what can be broken on an estate: `local`, `distributed` or `kubernetes`."""
    if place == "local":
        return FAULTS
    if place == "distributed":
        from control.server_faults import FAULTS as OF_SERVERS

        return {**FAULTS, **OF_SERVERS}
    from control.kube_faults import FAULTS as OF_CLUSTER  # it needs what a local estate does not

    return {name: fault for name, fault in FAULTS.items() if name not in _LOCAL_ONLY} | OF_CLUSTER


def inject(plant: Plant, name: str, *, target: str = "", value: str = "") -> str:
    """Break something; returns a sentence that says what was done.

    Raises:
        TapewatchError: no such fault or target, faults are not allowed, or the estate does not answer.
    """
    fault = find(name, plant.addresses.place)
    target, value = target or fault.target, value or fault.value
    if name == "feed-gap" and not value:
        value = _symbols(plant.layout)[0]
    _check(plant, fault, target, value)
    at = now()
    fault.inject(plant, target, value)
    _record(plant.layout, fault, target, value, at)  # afterwards: one that was refused never happened
    return f"{name} injected into {target}{f' ({value})' if value else ''}; ends by: {fault.cleared_by}"


def arrange(plant: Plant, name: str, target: str = "", value: str = "") -> str:
    """Do to the plant what others have done to it long ago; returns a sentence. It is no fault, and recorded as none.

    Raises:
        TapewatchError: as `inject`.
    """
    fault = find(name, plant.addresses.place)
    target, value = target or fault.target, value or fault.value
    _check(plant, fault, target, value)
    fault.inject(plant, target, value)
    return f"{name} arranged at {target}{f' ({value})' if value else ''}"


def _check_target(fault: Fault, target: str) -> None:
    if not target.startswith(fault.strikes):
        right = f"its name begins with {fault.strikes}, such as {fault.target}"
        raise InputError("target", f"{target[:40]!r} is none that {fault.name} strikes", right=right)


def _check(plant: Plant, fault: Fault, target: str, value: str) -> None:
    """Refuse a fault where none are allowed or at what it does not strike, and a value that would break nothing or all.

    Raises:
        RefusedByRailError: faults are not allowed.
        InputError: the target is of another kind, or the value makes no sense.
    """
    name = fault.name
    if not plant.addresses.faults_allowed:
        raise RefusedByRailError("faults are not allowed on this estate (setting faults_allowed)")
    _check_target(fault, target)
    most = _NUMBERS.get(name)
    if most is not None and not 0 < number(value) <= most:
        raise InputError("value", f"is {value}", right=f"more than 0, at most {most:g}")
    known = {
        "feed-gap": lambda: _symbols(plant.layout),
        "control-crash": lambda: [str(point) for point in Failpoint],
    }.get(name)  # fmt: skip
    words = value.split(",") if name == "control-crash" else [value]
    wrong = [word for word in words if word not in known()] if known is not None else []
    if known is not None and wrong:
        raise InputError("value", f"{wrong[0][:40]!r} is not known", right=f"there are {', '.join(known())}")


def clear(plant: Plant, name: str, *, target: str = "") -> str:
    """Take a fault back by hand; returns a sentence that says what was done, or that there was nothing to do.

    Raises:
        TapewatchError: no such fault or target, faults are not allowed, or the estate does not answer.
    """
    fault = find(name, plant.addresses.place)
    target = target or fault.target
    _check_target(fault, target)
    if fault.clear is _nothing:
        return f"{name} is not taken back by hand: {fault.cleared_by}"
    if fault.suffered is not None and not fault.suffered(plant, target):
        return f"{name} is not at {target}: nothing was done"
    fault.clear(plant, target, "")
    return f"{name} cleared at {target}"


def _symbols(layout: Layout) -> list[str]:
    known = msgspec.json.decode((layout.root / "instruments.json").read_bytes())
    return [str(instrument["symbol"]) for instrument in (known["instruments"] if isinstance(known, dict) else known)]


def active(plant: Plant) -> dict[str, dict[str, str]]:
    """Return what the processes of a running estate say they suffer now: target to value, by the fault's name.

    A signal and a held process are no switch that a process could tell of; a process that does not answer says nothing.
    """
    found: dict[str, dict[str, str]] = {}
    for replicas in plant.addresses.workloads.values():
        for replica in replicas:
            with contextlib.suppress(TapewatchError):
                told = call("GET", f"{replica.url}/admin/faults", token=plant.admin, timeout_s=_LOOK_S)
                for name, value in told["active"].items() if isinstance(told, dict) else ():
                    found.setdefault(name, {})[replica.id] = "" if value is None else f"{value}"
    return found


def described(fault: Fault) -> dict[str, str]:
    """Return a fault's words, for scripts."""
    return {
        "name": fault.name, "what": fault.what, "target": fault.target, "value": fault.value,
        "cleared_by": fault.cleared_by,
    }  # fmt: skip


def stop_and_wait(plant: Plant, *, timeout_s: float = 40.0) -> None:
    """Ask the estate to stop and return when its state directory is free.

    Raises:
        TemporaryError: it does not answer, or is still there after `timeout_s`.
    """
    plant.estate("/v1/down", {})
    deadline_s = time.monotonic() + timeout_s
    while is_held(plant.layout):
        if time.monotonic() > deadline_s:
            raise TemporaryError(f"the estate (pid {plant.addresses.pid}) has not stopped within {timeout_s:g} s")
        time.sleep(0.05)
