"""The edge: HAProxy or nginx before the gateways, by the configurations of `deploy/` with an estate's addresses."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import psutil

from control.addresses import HOST, write_atomically
from control.plan import holder_of, is_free
from control.servers.local_server import finish, last_words_of, spawn, told_in, wait_until_it_serves
from control.servers.trial_authority import leaf
from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
BALANCERS: Final = ("haproxy", "nginx")
Balancer = Literal["haproxy", "nginx"]
READY_WITHIN_S: Final = 20.0
SELF: Final = "/health/edge"
"""Answered by the edge itself, whatever the gateways do."""
_TELLING: Final = ("ALERT", "emerg", "error", "Error", "ERROR")
"""What a line of a balancer's has in it that says why something was refused."""
_SBIN: Final = "/usr/sbin"
_GRACE_S: Final = 5.0
_SOCKET_S: Final = 0.8
_ANSWER: Final = 65_536
_STEP_S: Final = 0.05
_CHECK_S: Final = 10.0
_SHOWN_WITHIN_S: Final = 5.0


@dataclass(frozen=True)
class EdgePlace:
    """One edge: what stands where."""

    balancer: Balancer
    directory: Path
    """Configuration, output, cache; others may be let in (nginx's workers are nobody)."""
    certificate: Path
    """Key and certificate, PEM: the file that the balancer reads."""
    https: int
    stats: int
    gateways: Mapping[str, int]
    """Every gateway there may be, by name: those that do not run are found out by asking."""
    market_data: int = 0
    """0: books and feed are not offered (nginx only)."""
    program: str = ""
    """Empty: the one on PATH, or where Debian puts it."""


def find(balancer: str, named: str = "") -> Path:
    """Return the program of a load balancer.

    Raises:
        InputError: the one named is no program, or no such balancer is known.
        PermanentError: it is not installed.
    """
    if balancer not in BALANCERS:
        raise InputError("edge", f"{balancer!r} is not known", right=f"there are {', '.join(BALANCERS)}")
    if named:
        if not os.access(named, os.X_OK):
            raise InputError(f"edge program {named}", "is no program", right="leave it out to have it looked for")
        return Path(named)
    found = shutil.which(balancer) or shutil.which(balancer, path=_SBIN)
    if found is None:
        raise PermanentError(f"there is no program {balancer}: install it (Debian: {balancer}), or choose another edge")
    return Path(found)


def config_of(place: EdgePlace, control_socket: Path) -> str:
    """Return the configuration of an edge: the file of `deploy/` with other addresses, and all gateways.

    Raises:
        PermanentError: the file does not have what is to be replaced in it.
    """
    return _haproxy(place, control_socket) if place.balancer == "haproxy" else _nginx(place)


def _haproxy(place: EdgePlace, control_socket: Path) -> str:
    text = _text("haproxy/haproxy.cfg")
    # At layer 4 there is neither TLS nor a second try: an estate's edge has none of it.
    text = text[: _at(text, "# --- layer 4 ")]
    servers = "".join(f"    server {name} {HOST}:{port}\n" for name, port in place.gateways.items())
    start = _at(text, "    server gateway-1 ")
    end = text.index("\n\n", start) + 1
    text = text[:start] + servers + text[end:]
    return _swapped(text, {
        "127.0.0.1:18444": f"{HOST}:{place.https}",
        "127.0.0.1:18446": f"{HOST}:{place.stats}",
        "/etc/tapewatch/edge.pem": str(place.certificate),
        "/run/tapewatch-haproxy.sock": str(control_socket),
        # In an estate every participant comes from this machine: one address is all of them.
        "sc_conn_cur(0) gt 256": "sc_conn_cur(0) gt 4096",
        # Otherwise a second HAProxy would share the port with one that was left behind, and nobody would be told.
        "    maxconn 4096\n    log": "    maxconn 4096\n    noreuseport\n    log",
        "    option dontlognull\n": "    option dontlognull\n    option dontlog-normal\n",
    })  # fmt: skip


def _nginx(place: EdgePlace) -> str:
    text = _text("nginx/nginx.conf")
    ports = place.gateways.values()
    servers = "".join(f"        server {HOST}:{port} max_fails=2 fail_timeout=1s;\n" for port in ports)
    start = _at(text, "        server 127.0.0.1:18800 ")
    end = _at(text, "        keepalive 64;")
    text = text[:start] + servers + text[end:]
    if os.getuid() == 0:  # its workers would be nobody, to whom a state directory may be closed
        text = "user root;\n" + text
    return _swapped(text, {
        "127.0.0.1:18443": f"{HOST}:{place.https}",
        "127.0.0.1:18446": f"{HOST}:{place.stats}",
        "127.0.0.1:18720": f"{HOST}:{place.market_data or 9}",
        "/etc/tapewatch/edge.pem": str(place.certificate),
        "/run/tapewatch-nginx.pid": str(place.directory / "nginx.pid"),
        "/var/cache/tapewatch-edge": str(place.directory / "cache"),
        "limit_conn clients 256": "limit_conn clients 4096",
        "access_log /dev/stdout orders;": "access_log off;",
    })  # fmt: skip


def _text(name: str) -> str:
    path = DEPLOY / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PermanentError(f"{path}: cannot be read ({error.strerror}); install the project whole") from error


def _at(text: str, mark: str) -> int:
    at = text.find(mark)
    if at < 0:
        raise PermanentError(f"the edge's configuration has no {mark.strip()!r}")
    return at


def _swapped(text: str, swaps: Mapping[str, str]) -> str:
    for old, new in swaps.items():
        _at(text, old)
        text = text.replace(old, new)
    return text


class Edge:
    """One load balancer; it ends with the thread that started it."""

    def __init__(self, place: EdgePlace) -> None:
        """Nothing is started before `start`."""
        self.place: Final = place
        self._program: Final = find(place.balancer, place.program)
        self._process: subprocess.Popen[bytes] | None = None
        self._short = Path()
        """A directory whose path is short enough for a socket in it."""

    @property
    def pid(self) -> int | None:
        """Its process; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs, and before."""
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            self._end_workers()
        return code

    def start(self, within_s: float = READY_WITHIN_S) -> None:
        """Start it; returns when it takes connections.

        Raises:
            PermanentError: it refuses its configuration, or ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert self._process is None, "it runs already"
        place = self.place
        place.directory.mkdir(parents=True, exist_ok=True)
        self._end_workers()
        for port in (place.https, place.stats):
            if not is_free(port):
                raise PermanentError(f"port {port} of the edge is in use by {holder_of(port)}")
        self._short = Path(tempfile.mkdtemp(prefix="tapewatch-edge-"))
        path = place.directory / f"{place.balancer}.conf"
        path.write_text(config_of(place, self._short / "control.sock"), encoding="utf-8")
        try:
            with self._output.open("wb") as output:
                self._process = spawn(place.balancer, self._argv(path), output, place.directory)
            wait_until_it_serves(
                place.balancer, self._process, self._why_not, self.last_words, until_s=time.monotonic() + within_s
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it: connections that have something under way may finish it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM if self.place.balancer == "haproxy" else signal.SIGQUIT)
            finish(self._process, _GRACE_S)
            self._process = None
            self._end_workers()
        if self._short.name:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = Path()

    def refusal(self, pem: bytes) -> str:
        """Return why the balancer would not take key and certificate, by its own check; nothing when it would.

        Raises:
            TemporaryError: the check did not end in time.
            OSError: the directory cannot be written.
        """
        place = self.place
        place.directory.mkdir(parents=True, exist_ok=True)
        offered, path = place.directory / "offered.pem", place.directory / f"{place.balancer}-offered.conf"
        write_atomically(offered, pem, mode=0o600)
        tried = dataclasses.replace(place, certificate=offered)
        path.write_text(config_of(tried, place.directory / "s"), encoding="utf-8")
        flag = "-c" if place.balancer == "haproxy" else "-t"
        try:
            ran = subprocess.run(
                [*self._argv(path), flag], cwd=place.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=_CHECK_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise TemporaryError(f"{place.balancer} did not end its own check within {_CHECK_S:g} s") from error
        finally:
            offered.unlink(missing_ok=True)
        if not ran.returncode:
            return ""
        told = told_in(ran.stdout.decode("utf-8", "replace").splitlines(), _TELLING)
        return told or f"{place.balancer} {flag} ended with {ran.returncode}"

    def show(self, pem: bytes) -> None:
        """Show key and certificate to whoever connects from now on; returns once a new connection saw them.

        Connections that are open stay as they are: HAProxy changes what it holds in memory, nginx is reloaded and its
        old workers serve theirs to the end.

        Raises:
            TapewatchError: a new connection does not see them; those before are shown.
        """
        before = self.place.certificate.read_bytes()
        try:
            self.show_once(pem)
            self._await_shown(leaf(pem), time.monotonic() + _SHOWN_WITHIN_S)
        except TapewatchError:
            with contextlib.suppress(TapewatchError):
                self.show_once(before)
            raise

    def show_once(self, pem: bytes) -> None:
        """Tell the balancer to show them; HAProxy's next start shows those of the file again.

        Raises:
            TapewatchError: it refuses them, or does not answer.
        """
        file = self.place.certificate
        if self.place.balancer == "nginx":
            if self.pid is None or self._process is None:
                raise TemporaryError("nginx does not run")
            write_atomically(file, pem, mode=0o600)
            self._process.send_signal(signal.SIGHUP)
            return
        # An empty line would end it there: what follows, such as the chain, would be taken for commands.
        lines = [line for line in pem.decode("ascii", "replace").splitlines() if line.strip()]
        said = self.tell("\n".join((f"set ssl cert {file} <<", *lines, "")))
        if "ransaction" not in said:
            raise PermanentError(said[:200])
        if "Success" not in (said := self.tell(f"commit ssl cert {file}")):
            self.tell(f"abort ssl cert {file}")
            raise PermanentError(said[:200])

    def shown(self) -> bytes:
        """Return the certificate (DER) that a new connection sees.

        Raises:
            OSError: nobody answers there.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is looked at, not trusted
        with (
            socket.create_connection((HOST, self.place.https), timeout=_SOCKET_S) as line,
            context.wrap_socket(line) as spoken,
        ):
            return spoken.getpeercert(binary_form=True) or b""

    def _await_shown(self, certificate: bytes, until_s: float) -> None:
        seen = b""
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                if (seen := self.shown()) == certificate:
                    return
            time.sleep(_STEP_S)
        words = "shows another certificate" if seen else "does not answer over TLS"
        raise TemporaryError(f"{self.place.balancer} was told of a new certificate and {words}")

    def tell(self, command: str) -> str:
        """Give HAProxy a command on its socket and return the answer (nginx has no such thing).

        Raises:
            TemporaryError: it does not answer.
            PermanentError: it is nginx.
        """
        if self.place.balancer != "haproxy":
            raise PermanentError("nginx takes no commands while it runs")
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(_SOCKET_S)
                line.connect(str(self._short / "control.sock"))
                line.sendall(command.encode() + b"\n")
                answer = b""
                while part := line.recv(_ANSWER):
                    answer += part
        except OSError as error:
            raise TemporaryError(f"HAProxy does not answer on its socket: {error}") from error
        return answer.decode("utf-8", "replace").strip()

    def last_words(self) -> str:
        """Return what it wrote last, for error messages."""
        return last_words_of([self._output], _TELLING)

    def _argv(self, config: Path) -> list[str]:
        if self.place.balancer == "haproxy":
            return [str(self._program), "-db", "-f", str(config)]
        return [str(self._program), "-p", str(self.place.directory), "-e", "stderr", "-c", str(config)]

    def _end_workers(self) -> None:
        """End workers of an nginx whose master was killed: they would go on serving, and hold the port."""
        if self.place.balancer != "nginx":
            return
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "nginx" and Path(process.cwd()) == self.place.directory.resolve():
                    process.kill()

    @property
    def _output(self) -> Path:
        return self.place.directory / f"{self.place.balancer}.out"

    def _why_not(self) -> str:
        try:
            socket.create_connection((HOST, self.place.https), timeout=_SOCKET_S).close()
        except OSError as error:
            return str(error)
        return ""


def balancer_of(word: str) -> Balancer:
    """Return the balancer of that name.

    Raises:
        InputError: none is known by it.
    """
    if word not in BALANCERS:
        raise InputError("edge", f"{word!r} is not known", right=f"there are {', '.join(BALANCERS)}")
    return cast("Balancer", word)
