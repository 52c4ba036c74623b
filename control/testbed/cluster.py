"""A whole Kubernetes control plane on loopback: started, asked, broken on purpose, healed, and gone without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psutil

from control.addresses import HOST
from control.child import tied
from control.state_dir import is_locked
from control.testbed.components import ORDER, argv, choose_ports
from control.testbed.files import STAGES, Files, node
from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError

LOCK: Final = "testbed.lock"
"""Held (flock) while a test bed runs in a directory; a directory without it was never ours."""
KUBELETS: Final = "kwok"
KUBELETS_AGAIN: Final = 3
"""How often simulated kubelets that ended by themselves are started again."""
READY_WITHIN_S: Final = 90.0
STEP_S: Final = 0.03
_PREFIX: Final = "tapewatch-testbed-"
_TAIL_LINES: Final = 8
T = TypeVar("T")


class ApiStatusError(PermanentError):
    """The API server answered with an error: `code` (HTTP), `reason` (Kubernetes' word) and `body` (its bytes)."""

    def __init__(self, request: str, code: int, body: bytes) -> None:
        status: Any = None
        with contextlib.suppress(ValueError):  # an overloaded server answers in plain text
            status = json.loads(body)
        known = status if isinstance(status, dict) else {}
        said = known.get("message") or body.decode(errors="replace").strip()[:300]
        super().__init__(f"{request} was answered {code}: {said or 'nothing more'}")
        self.code = code
        self.reason = str(known.get("reason", ""))
        self.body = body


def ask(  # noqa: PLR0913 - a request has so many parts
    port: int,
    token: str,
    trust: ssl.SSLContext,
    method: str,
    path: str,
    body: object = None,
    *,
    content_type: str = "application/json",
    timeout_s: float = 10.0,
) -> Any:
    """Ask an API server on loopback once; see `Cluster.request`."""
    connection = http.client.HTTPSConnection(HOST, port, timeout=timeout_s, context=trust)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        code, data, kind = response.status, response.read(), response.headers.get_content_type()
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryError(f"{method} {path} has no answer: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    if code >= 400:  # noqa: PLR2004 - HTTP's own number
        raise ApiStatusError(f"{method} {path}", code, data)
    return json.loads(data) if kind == "application/json" else data.decode()


class Cluster:
    """One test bed: etcd, API server, controller manager, scheduler and simulated kubelets. A context manager.

    Its processes are killed by the kernel when the *thread* that started them ends, so start it on the main thread, or
    on one that outlives it. What it stored is forgotten at the next start.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path | None = None,
        *,
        nodes: int = 2,
        stages: Path = STAGES,
        flags: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Take ports and names; nothing is started or written before `start`.

        Args:
            binary: the program of `control.testbed.build`.
            directory: where its files lie; None for one in memory that is removed at the end.
            nodes: simulated nodes, named node-0 and so on.
            stages: how the simulated kubelets behave.
            flags: further flags by component, such as `{"kube-apiserver": ["--request-timeout", "5s"]}`.
        """
        self.binary = binary.absolute()
        self._lasting = directory is not None
        self.root = directory.absolute() if directory is not None else _in_memory()
        self.files = Files(self.root)
        self.ports = choose_ports()
        self.url = self.ports.url
        self.kubeconfig = self.files.kubeconfig("admin")
        """Full rights; what is done with it is in the audit log."""
        self.audit_log = self.files.audit_log
        self.pod_log = self.files.pod_log
        self.times_s: dict[str, float] = {}
        """Seconds after the start at which `api` and `nodes` were ready."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._kubelets_left = KUBELETS_AGAIN
        self._nodes, self._stages, self._flags = nodes, stages, flags or {}
        self._lock: int | None = None

    # --- its life ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start everything; returns when the nodes are Ready and pods can be made.

        Raises:
            InputError: the directory holds something else.
            PermanentError: another test bed runs there, a program is missing, or a component ended.
            TemporaryError: it was not ready in time.
        """
        began = time.monotonic()
        self._take_directory()
        try:
            self.files.write(self.url, self._stages)
            self.spawn("etcd")
            self.spawn("kube-apiserver")
            self.wait_api()
            self.times_s["api"] = round(time.monotonic() - began, 2)
            for component in ORDER[2:]:
                self.spawn(component)
            self.add_nodes(self._nodes)
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self.wait("the default service account", lambda: self.request("GET", account))
            self.times_s["nodes"] = round(time.monotonic() - began, 2)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process at once, and remove the directory if it was our own choice."""
        for component in reversed(ORDER):
            self.kill(component)  # what it stored is not kept, so nothing need be finished
        if self._lock is not None:
            if not self._lasting:
                shutil.rmtree(self.root, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it."""
        self.stop()

    def _take_directory(self) -> None:
        if not self._lasting:
            _sweep(self.root.parent)
        make_directory(self.root)
        self._lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise PermanentError(f"another test bed runs in {self.root}; `tapewatch kube down` stops it") from error
        shutil.rmtree(self.files.etcd, ignore_errors=True)
        for log in self.root.glob("*.log"):
            log.unlink()

    # --- its processes ----------------------------------------------------------------------------------------------

    def spawn(self, component: str) -> None:
        """Start a component that does not run; does not wait until it is ready.

        Raises:
            PermanentError: setpriv or the binary cannot be run.
        """
        command = tied(argv(str(self.binary), component, self.files, self.ports))
        with self.files.output(component).open("ab") as output:
            try:
                self.processes[component] = subprocess.Popen(
                    [*command, *self._flags.get(component, ())],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env={**os.environ, "GOMAXPROCS": "2"},
                    start_new_session=True,  # Ctrl-C is for us, who stop it in order
                )  # fmt: skip
            except OSError as error:
                raise PermanentError(f"{component} cannot be started: setpriv: {error.strerror}") from error

    def kill(self, component: str, number: int = signal.SIGKILL) -> None:
        """End a component and wait for its end; a stopped one, too. Nothing happens when it does not run."""
        process = self.processes.pop(component, None)
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def send(self, component: str, number: int) -> None:
        """Send a signal, such as SIGSTOP and SIGCONT."""
        self.processes[component].send_signal(number)

    def heal(self) -> None:
        """Continue what is stopped and start what does not run; returns when the API is ready again."""
        self.processes = {name: process for name, process in self.processes.items() if process.poll() is None}
        for component in ORDER:
            if component == ORDER[2]:
                self.wait_api()  # the others end when they find no API at their start
            if component in self.processes:
                self.send(component, signal.SIGCONT)
            else:
                self.spawn(component)
        self.wait_api()

    def alive(self) -> dict[str, int | None]:
        """Return the process id of each component; None for one that does not run."""
        found = {name: self.processes.get(name) for name in ORDER}
        return {name: one.pid if one is not None and one.poll() is None else None for name, one in found.items()}

    def memory(self) -> dict[str, int]:
        """Return each component's share of memory (PSS) in bytes: pages of the one binary are counted once."""
        return {name: pss(pid) for name, pid in self.alive().items() if pid is not None}

    def last_words(self, component: str, lines: int = _TAIL_LINES) -> str:
        """Return the last lines a component wrote."""
        try:
            written = self.files.output(component).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return "(its output cannot be read)"
        return "\n".join(written) or "(it wrote nothing)"

    # --- its API ----------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        token: str = "",
        timeout_s: float = 10.0,
    ) -> Any:
        """Ask the API server once and return the answer's JSON (text, when it is none); leaves no audit record.

        With `token` it asks in the name of whom the token belongs to, and leaves one.

        Raises:
            ApiStatusError: it answered with an error.
            TemporaryError: there was no answer. A write may have been carried out.
        """
        return ask(
            self.ports.api, token or self.files.tokens["probe"], self._trust, method, path, body,
            content_type=content_type, timeout_s=timeout_s,
        )  # fmt: skip

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.files.ca))

    def kubectl(self, *words: str, stdin: str = "", timeout_s: float = 60.0) -> str:
        """Run kubectl with full rights and return its output; leaves audit records.

        Raises:
            PermanentError: it failed; carries its words.
        """
        done = subprocess.run(
            [str(self.binary), "kubectl", "--kubeconfig", str(self.kubeconfig),
             "--cache-dir", str(self.root / "kubectl"), *words],
            input=stdin, check=False, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        if done.returncode:
            raise PermanentError(f"kubectl {' '.join(words)} failed: {done.stderr.strip()}")
        return done.stdout

    def token_for(self, account: str, namespace: str = "default", *, seconds: int = 3600) -> str:
        """Return a new bearer token of a service account; `seconds` is at least 600."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        made = self.request("POST", path, {**asked, "spec": {"expirationSeconds": seconds}})
        return str(made["status"]["token"])

    def write_kubeconfig(self, name: str, token: str, *, namespace: str = "default", url: str = "") -> Path:
        """Write a kubeconfig (0600) for whoever bears `token` and return its path; `url` may be a proxy's."""
        return self.files.write_kubeconfig(name, token, url or self.url, namespace)

    def add_nodes(self, count: int) -> None:
        """Add simulated nodes and wait until all are Ready and take pods."""
        there = {one["metadata"]["name"] for one in self._node_list()}
        names = [f"node-{number}" for number in range(len(there) + count)]
        for name in [name for name in names if name not in there][:count]:
            self.request("POST", "/api/v1/nodes", node(name, self.ports.kubelet))
        self.wait("Ready of every node", lambda: all(map(takes_pods, self._node_list())))

    def _node_list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.request("GET", "/api/v1/nodes")["items"]
        return found

    # --- waiting ----------------------------------------------------------------------------------------------------

    def wait(self, what: str, check: Callable[[], T], *, timeout_s: float = READY_WITHIN_S) -> T:
        """Ask `check` until its answer is true, and return it; operating errors count as not yet.

        Raises:
            PermanentError: a component has ended meanwhile; carries its last words.
            TemporaryError: not in time.
        """
        deadline = time.monotonic() + timeout_s
        last: Exception | None = None
        while time.monotonic() < deadline:
            for name, process in self.processes.items():
                if process.poll() is None:
                    continue
                if name != KUBELETS or not self._kubelets_left:
                    raise PermanentError(f"{name} ended with {process.returncode}: {self.last_words(name)}")
                self._kubelets_left -= 1  # kwok 0.8 now and then ends at its start in a race of its own
                self.spawn(name)
                break
            try:
                if found := check():
                    return found
            except (TapewatchError, OSError, ValueError, LookupError) as error:
                last = error
            time.sleep(STEP_S)
        raise TemporaryError(f"{what}: not within {timeout_s:g} s" + (f"; last: {last}" if last else ""))

    def wait_api(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until the API server says that it is ready."""
        self.wait("the API server", lambda: self.request("GET", "/readyz", timeout_s=2) == "ok", timeout_s=timeout_s)


def is_ready(node: dict[str, Any]) -> bool:
    """Tell whether a node says that it is Ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", ()))


def takes_pods(node: dict[str, Any]) -> bool:
    """Tell whether a node is Ready and no longer kept free for not having been."""
    return is_ready(node) and not any(
        one["key"] == "node.kubernetes.io/not-ready" for one in node["spec"].get("taints", ())
    )


def pss(pid: int) -> int:
    """Return a process's proportional memory in bytes; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0


def make_directory(root: Path) -> None:
    """Make a test bed's directory, for its owner only.

    Raises:
        InputError: it holds something else.
        PermanentError: it cannot be made or used.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (root / LOCK).exists() and any(root.iterdir()):
            raise InputError(str(root), "holds other files", right="name an empty directory")
        (root / LOCK).touch(0o600)
        root.chmod(0o700)
    except OSError as error:
        raise PermanentError(f"the test bed's directory {root} cannot be used: {error.strerror}") from error


def _in_memory() -> Path:
    base = Path("/dev/shm")  # noqa: S108 - a directory of our own (0700) below it
    if not os.access(base, os.W_OK):
        base = Path(tempfile.gettempdir())
    return base / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def _sweep(base: Path) -> None:
    """Remove what test beds left in memory whose process was killed."""
    for old in base.glob(f"{_PREFIX}*-*"):
        if not psutil.pid_exists(int(old.name.removeprefix(_PREFIX).partition("-")[0])) and not is_held(old):
            shutil.rmtree(old, ignore_errors=True)


def is_held(directory: Path) -> bool:
    """Tell whether a test bed runs in a directory now."""
    return is_locked(directory / LOCK)
