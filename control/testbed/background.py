"""A test bed that runs in a process of its own: started, told about, stopped. Only this file knows how they meet.

The keeper (`keep`) holds the directory's lock, writes `testbed.json` when all is ready, heals its components at SIGUSR1
and ends with SIGTERM. Its components die with it, however it dies.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

import msgspec
import psutil

from control.addresses import write_atomically
from control.child import now
from control.testbed.cluster import Cluster, ask, is_held, is_ready, make_directory, pss
from control.testbed.components import ORDER
from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import Instant, to_rfc3339

DIRECTORY: Final = Path(".tapewatch/kube")
HEAL: Final = signal.SIGUSR1
_UP_WITHIN_S: Final = 120.0
_DOWN_WITHIN_S: Final = 30.0
_STEP_S: Final = 0.1
_GLANCE_S: Final = 5.0
"""How long a look at the nodes waits for a server that may hang."""
_KEEPERS: Final[list[subprocess.Popen[bytes]]] = []
"""Those that this process has started: they outlive it on purpose, so nothing here waits for their end."""
_ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What `testbed.json` says of a running test bed."""

    pid: int
    """The keeper's."""
    created_s: float
    """The keeper's start as the kernel tells it: a process id alone may be another's by now."""
    since: Instant
    url: str
    kubeconfig: str
    binary: str
    """Is kubectl, too: `BINARY kubectl get nodes`."""
    version: str
    """The server's, such as `v1.36.3`."""
    components: dict[str, int]
    """Process ids."""
    times_s: dict[str, float]


class Component(msgspec.Struct, frozen=True):
    """One process of a test bed now."""

    name: str
    pid: int | None
    alive: bool
    stopped: bool
    """Alive, and stopped by a signal: it answers nobody."""
    memory_bytes: int
    """Proportional: pages of the one binary are counted once."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A test bed as it is now."""

    state: str
    """Its directory."""
    running: bool
    pid: int | None = None
    since: str = ""
    url: str = ""
    kubeconfig: str = ""
    version: str = ""
    nodes: dict[str, bool] = {}
    """Ready or not; empty when the API server does not answer."""
    components: tuple[Component, ...] = ()
    problem: str = ""


# --- the keeper -----------------------------------------------------------------------------------------------------


def keep(binary: Path, directory: Path, nodes: int, tell: Callable[[Kept], None]) -> None:
    """Run a test bed in this process until SIGTERM, SIGINT or SIGHUP; call on the main thread.

    A component that ends is not started again before SIGUSR1: whoever ended it wants to see what follows.

    Raises:
        InputError, PermanentError, TemporaryError: as `Cluster.start`.
        KeyboardInterrupt: asked to end before it was ready; nothing is left.
    """
    asked: list[int] = []
    ready: list[Kept] = []

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the interpreter's signature
        asked.append(number)
        if not ready:
            raise KeyboardInterrupt  # whatever is waited for

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, HEAL)
    before = {number: signal.signal(number, ask) for number in numbers}
    record = directory.absolute() / "testbed.json"
    try:
        with Cluster(binary, directory, nodes=nodes) as cluster:
            ready.append(_kept(cluster))
            write_atomically(record, msgspec.json.encode(ready[0]), mode=0o600)
            tell(ready[0])
            while set(asked) <= {HEAL}:
                if asked:
                    asked.remove(HEAL)
                    cluster.heal()
                    write_atomically(record, msgspec.json.encode(_kept(cluster, ready[0].since)), mode=0o600)
                time.sleep(_STEP_S)
            record.unlink(missing_ok=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kept(cluster: Cluster, since: Instant | None = None) -> Kept:
    return Kept(
        pid=os.getpid(),
        created_s=psutil.Process().create_time(),
        since=since or now(),
        url=cluster.url,
        kubeconfig=str(cluster.kubeconfig),
        binary=str(cluster.binary),
        version=str(cluster.request("GET", "/version")["gitVersion"]),
        components={name: pid for name, pid in cluster.alive().items() if pid is not None},
        times_s=cluster.times_s,
    )


# --- whoever speaks to it -------------------------------------------------------------------------------------------


def running(directory: Path) -> Kept | None:
    """Return what is known of the test bed that runs in a directory; None when none does, or none is ready yet."""
    if not is_held(directory):
        return None
    try:
        kept = msgspec.json.decode((directory / "testbed.json").read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept if _keeper(kept) is not None else None


def _keeper(kept: Kept) -> psutil.Process | None:
    try:
        process = psutil.Process(kept.pid)
        return process if abs(process.create_time() - kept.created_s) < 1 else None
    except psutil.Error:
        return None


def start(binary: Path, directory: Path, nodes: int) -> Kept:
    """Start a keeper that outlives this process and return when its test bed is ready.

    Raises:
        InputError: the directory holds something else.
        PermanentError: it ended before it was ready; carries its last words.
        TemporaryError: it was not ready in time, and was ended.
    """
    make_directory(directory)
    words = [sys.executable, "-m", "cli", "kube", "up", "--foreground"]
    words += ["--state", str(directory.absolute()), "--nodes", str(nodes)]
    said = directory.absolute().parent / f"{directory.name}.out"
    with said.open("wb") as output:
        keeper = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "TAPEWATCH_TESTBED": str(binary)},
        )  # fmt: skip
    _KEEPERS.append(keeper)
    try:
        return _until_ready(keeper, directory, said)
    except BaseException:
        _end(keeper)
        raise


def _until_ready(keeper: subprocess.Popen[bytes], directory: Path, said: Path) -> Kept:
    deadline = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < deadline:
        kept = running(directory)
        if kept is not None and kept.pid == keeper.pid:
            return kept
        if keeper.poll() is not None:
            last = said.read_text(errors="replace").strip().removeprefix("tapewatch: ")
            raise PermanentError(last or f"the test bed ended with {keeper.returncode} and said nothing")
        time.sleep(_STEP_S)
    raise TemporaryError(f"the test bed was not ready within {_UP_WITHIN_S:g} s; see the logs in {directory}")


def _end(keeper: subprocess.Popen[bytes]) -> None:
    keeper.terminate()
    try:
        keeper.wait(_DOWN_WITHIN_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def stop(directory: Path) -> int:
    """End the test bed that runs in a directory and wait until all its processes are gone; returns its keeper's pid.

    Raises:
        TemporaryError: none runs there.
        PermanentError: it is somebody else's, or does not end.
    """
    kept = running(directory)
    keeper = _keeper(kept) if kept is not None else None
    if kept is None or keeper is None:
        raise TemporaryError(not_running(directory))
    waited = [keeper, *keeper.children(recursive=True)]
    try:
        keeper.terminate()
    except psutil.AccessDenied as error:
        raise PermanentError(f"the test bed in {directory} is another user's (pid {kept.pid})") from error
    _, left = psutil.wait_procs(waited, timeout=_DOWN_WITHIN_S)
    if left:
        raise PermanentError(
            f"the test bed in {directory} did not end within {_DOWN_WITHIN_S:g} s: "
            f"pid {', '.join(str(each.pid) for each in left)}"
        )
    return kept.pid


def not_running(directory: Path) -> str:
    """Return the sentence for a directory in which nothing is to be found."""
    if is_held(directory):
        return f"a test bed in {directory} is being started or stopped just now; try again in a few seconds"
    return f"no test bed runs in {directory}: start one with `tapewatch kube up`"


def condition(directory: Path) -> Condition:
    """Look at the test bed of a directory: its processes, and its nodes if the API server answers."""
    kept = running(directory)
    if kept is None:
        return Condition(state=str(directory), running=False, problem=not_running(directory))
    components = tuple(_component(name, kept) for name in ORDER)
    nodes, problem = _nodes(kept)
    told = [f"{one.name} {'is stopped' if one.alive else 'does not run'}" for one in sick(components)]
    return Condition(
        state=str(directory), running=True, pid=kept.pid, since=to_rfc3339(kept.since),
        url=kept.url, kubeconfig=kept.kubeconfig, version=kept.version, nodes=nodes, components=components,
        problem=f"{', '.join(told)}: `tapewatch kube up` mends it" if told else problem,
    )  # fmt: skip


def _nodes(kept: Kept) -> tuple[dict[str, bool], str]:
    """Return which nodes are Ready, and the sentence that says why nobody tells."""
    try:
        account = msgspec.json.decode(Path(kept.kubeconfig).with_name("probe.kubeconfig").read_bytes())
        trust = ssl.create_default_context(cafile=account["clusters"][0]["cluster"]["certificate-authority"])
        port, token = urlsplit(kept.url).port or 0, account["users"][0]["user"]["token"]
        found = ask(port, token, trust, "GET", "/api/v1/nodes", timeout_s=_GLANCE_S)
        return {one["metadata"]["name"]: is_ready(one) for one in found["items"]}, ""
    except TapewatchError as error:
        return {}, str(error)
    except (OSError, LookupError, msgspec.DecodeError) as error:
        return {}, f"the kubeconfigs beside {kept.kubeconfig} cannot be read: {error}"


def _component(name: str, kept: Kept) -> Component:
    pid = kept.components.get(name)
    try:
        process = psutil.Process(pid) if pid is not None else None
        ours = process is not None and process.ppid() == kept.pid
        state = process.status() if process is not None and ours else psutil.STATUS_DEAD
    except psutil.Error:
        state = psutil.STATUS_DEAD
    alive = state not in {psutil.STATUS_DEAD, psutil.STATUS_ZOMBIE}
    return Component(name, pid, alive, state == psutil.STATUS_STOPPED, pss(pid) if alive and pid is not None else 0)


def sick(components: Sequence[Component]) -> list[Component]:
    """Return those that do not run or are stopped."""
    return [one for one in components if one.stopped or not one.alive]


def heal(directory: Path) -> list[str]:
    """Have what does not run started again and what is stopped continued; returns their names when all run.

    Raises:
        TemporaryError: not within the time of a start.
    """
    kept = running(directory)
    if kept is None:
        raise TemporaryError(not_running(directory))
    names = [one.name for one in sick(condition(directory).components)]
    if names:
        os.kill(kept.pid, HEAL)
        deadline = time.monotonic() + _UP_WITHIN_S
        while (now_there := condition(directory)).problem:
            if time.monotonic() > deadline or not now_there.running:
                raise TemporaryError(now_there.problem)
            time.sleep(_STEP_S)
    return names
