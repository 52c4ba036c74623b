"""RabbitMQ: found, and run as a child on loopback with own directories; killed and started again on its data.

Nothing is fetched: it is Debian's (`scripts/setup.sh` installs it in CI), or any other whose scripts are named.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from control.addresses import HOST
from control.plan import free_ports
from control.servers.local_server import OUTPUT, STEP_S, LocalServer
from control.servers.rabbit_handshake import log_in
from kernel.errors import InputError, PermanentError, TemporaryError

DEBIAN: Final = Path("/usr/lib/rabbitmq/lib")
"""Where Debian keeps it, a directory a version. What is on PATH there runs as root or as its own user only; the scripts
in these directories run as anybody."""
OLDEST: Final = (3, 10)
"""The first whose dead letters are passed on with a confirmation."""
PORTS: Final = ("amqp", "management", "prometheus", "distribution", "epmd")
"""What it listens on."""
READY_WITHIN_S: Final = 90.0
USER: Final = "tapewatch"
"""Its only user; the password is made anew for each server that is given none."""
_MAPPED_WITHIN_S: Final = 5.0
_CREATED: Final = (200, 201, 204)
_ELECT: Final = """\
% Once a second: a queue of this node without a leader elects one.
Look = fun(Look) ->
    timer:sleep(1000),
    Names = try ra_directory:list_registered(quorum_queues) catch _:_ -> [] end,
    [catch ra:trigger_election({Name, node()}) || {Name, _} <- Names,
        (catch ra_leaderboard:lookup_leader(Name)) =:= undefined],
    Look(Look)
end,
Look(Look).
"""
"""Run in the broker. In version 3.10 a quorum queue on a single node may never elect its leader when a client speaks to
it in the first moments after the broker's start (rabbitmq-server issue 10070): it is there, and takes and gives
nothing."""
_SMALL: Final[Mapping[str, object]] = {
    "vm_memory_high_watermark.absolute": "512MB", "disk_free_limit.absolute": "50MB",
    "raft.wal_max_size_bytes": 33_554_432, "log.file.level": "info", "log.console": "false",
    "collect_statistics_interval": 1_000, "prometheus.return_per_object_metrics": "true",
    "heartbeat": 10, "consumer_timeout": 1_800_000,
}  # fmt: skip


def find(named: str = "") -> Path | None:
    """Return the directory of RabbitMQ's scripts: the one `named` (setting rabbitmq), Debian's newest, beside PATH's.

    Raises:
        InputError: the one named lacks a script, or is too old.
    """
    if named:
        directory = Path(named).expanduser()
        if not _whole(directory):
            raise InputError(
                f"setting rabbitmq (TAPEWATCH_RABBITMQ): {named}", "has no program rabbitmq-server",
                right="name the directory that holds rabbitmq-server and rabbitmq-env (sbin)",
            )  # fmt: skip
        if version(directory) < OLDEST:
            raise InputError(
                f"setting rabbitmq (TAPEWATCH_RABBITMQ): {named}", f"is version {_dotted(version(directory))}",
                right=f"{_dotted(OLDEST)} or newer is needed",
            )  # fmt: skip
        return directory
    on_path = shutil.which("rabbitmq-server")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += DEBIAN.glob("rabbitmq_server-*/sbin")
    usable = [each for each in candidates if _whole(each) and version(each) >= OLDEST and shutil.which("erl")]
    return max(usable, key=version, default=None)


def found(named: str = "") -> Path:
    """Return the directory of RabbitMQ's scripts.

    Raises:
        InputError: the one named is none.
        PermanentError: there is none; says what to install.
    """
    directory = find(named)
    if directory is None:
        raise PermanentError(
            f"there is no RabbitMQ {_dotted(OLDEST)} or newer: install it (Debian: apt-get install "
            "--no-install-recommends rabbitmq-server), or name the directory of its scripts with TAPEWATCH_RABBITMQ"
        )
    return directory


def version(directory: Path) -> tuple[int, ...]:
    """Return the version of the server whose scripts lie in a directory; (0,) when it cannot be told."""
    plugins = directory.parent / "plugins"
    for each in plugins.glob("rabbit-*"):
        if number := re.fullmatch(r"rabbit-(\d+)\.(\d+)\.(\d+).*", each.name):
            return tuple(int(part) for part in number.groups())
    return (0,)


def _whole(directory: Path) -> bool:
    return all(os.access(directory / name, os.R_OK) for name in ("rabbitmq-server", "rabbitmq-env"))


def _dotted(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))


class Rabbit(LocalServer):
    """One RabbitMQ. A context manager; its processes end with the thread that started them."""

    title = "RabbitMQ"
    house = "rabbit"
    ready_within_s = READY_WITHIN_S
    grace_s = 15.0
    outputs = (OUTPUT, "log/rabbit.log")
    telling = ("[error]", "rror:", "BOOT FAILED")

    def __init__(
        self,
        scripts: Path,
        directory: Path | None = None,
        *,
        ports: Mapping[str, int] | None = None,
        password: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take ports; nothing is written before `start`.

        Args:
            scripts: the directory of its scripts, of `find`.
            directory: where its data, its log and its cookie lie; None for one of its own that is removed at the end.
            ports: on loopback, by the names in `PORTS`; those not named are free ones.
            password: of the user `tapewatch`; empty for a new one. Data that exist keep the one they were laid with.
            settings: of rabbitmq.conf; they come before ours.
        """
        super().__init__(directory)
        self.scripts = scripts
        free = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.ports: Final[Mapping[str, int]] = {**free, **(ports or {})}
        self.password = password or secrets.token_urlsafe(18)
        self._settings = dict(settings or {})

    # --- asking -----------------------------------------------------------------------------------------------------

    def url(self, vhost: str = "/") -> str:
        """Return the address of a virtual host without the password, `amqp://tapewatch@127.0.0.1:.../...`."""
        return f"amqp://{USER}@{HOST}:{self.ports['amqp']}/{urllib.parse.quote(vhost, safe='')}"

    def shake_hands(self, within_s: float = 1.0) -> None:
        """Log in and open the virtual host `/` by its own protocol.

        Raises:
            TemporaryError: it does not answer, or not in time.
            PermanentError: it refuses the user, the password or the virtual host.
        """
        log_in(self.ports["amqp"], USER, self.password, within_s=within_s)

    def ask(self, path: str, method: str = "GET", body: object = None, *, within_s: float = 5.0) -> Any:
        """Ask the management's API, such as `/api/overview`; returns what its JSON says, None when it says nothing.

        Raises:
            TemporaryError: it does not answer.
            PermanentError: it refuses; carries the status and its reason.
        """
        token = b64encode(f"{USER}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(HOST, self.ports["management"], timeout=within_s)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TemporaryError(f"RabbitMQ's management does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status not in _CREATED:
            raise PermanentError(f"RabbitMQ's management: {method} {path}: {answer.status} {data[:200]!r}")
        return json.loads(data) if data else None

    def make_vhost(self, name: str) -> str:
        """Make an empty virtual host and return its address."""
        quoted = urllib.parse.quote(name, safe="")
        self.ask(f"/api/vhosts/{quoted}", "PUT", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.ask(f"/api/permissions/{quoted}/{USER}", "PUT", everything)
        return self.url(name)

    def drop_vhost(self, name: str) -> None:
        """Remove a virtual host with everything in it."""
        self.ask(f"/api/vhosts/{urllib.parse.quote(name, safe='')}", "DELETE")

    # --- starting ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for name in ("", "db", "log"):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            _write(cookie, secrets.token_hex(20), mode=0o400)
        _write(self.directory / "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")
        _write(self.directory / "elect.erl", _ELECT)
        ours = {
            "listeners.tcp.1": f"{HOST}:{self.ports['amqp']}",
            "management.tcp.ip": HOST, "management.tcp.port": self.ports["management"],
            "prometheus.tcp.ip": HOST, "prometheus.tcp.port": self.ports["prometheus"],
            "default_user": USER, "default_pass": self.password, "default_vhost": "/",
            **_SMALL, **self._settings,
        }  # fmt: skip
        lines = [f"{name} = {value}" for name, value in ours.items()]
        _write(self.directory / "rabbitmq.conf", "\n".join(lines) + "\n")

    def _environment(self) -> dict[str, str]:
        """What it is started with: no RABBITMQ_* or ERL_* variable of ours may change it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        here = self.directory
        return {
            **kept, "HOME": str(here), "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": "tapewatch@localhost", "RABBITMQ_MNESIA_BASE": str(here / "db"),
            "RABBITMQ_LOG_BASE": str(here / "log"), "RABBITMQ_LOGS": str(here / "log" / "rabbit.log"),
            "RABBITMQ_PID_FILE": str(here / "pid"), "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # The script then becomes the broker instead of waiting beside it: one process, which our death ends.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "ERL_EPMD_ADDRESS": HOST, "ERL_EPMD_PORT": str(self.ports["epmd"]),
            # Without the first the distribution listens on every interface; the rest is for machines of few cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-noinput -start_epmd false -kernel inet_dist_use_interface {127,0,0,1} "
                # No spaces within: the script parts words at them.
                f'-eval spawn(fun()->(file:eval("{here / "elect.erl"}"))end) '
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }  # fmt: skip

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the port mapper as a child of ours, for Erlang's own would outlive everybody, and then the broker."""
        environment = self._environment()
        epmd = self._child(["epmd", "-port", str(self.ports["epmd"])], output, environment)
        self._companions.append(epmd)
        until = time.monotonic() + _MAPPED_WITHIN_S
        while not _listens(self.ports["epmd"]) and time.monotonic() < until and epmd.poll() is None:
            time.sleep(STEP_S / 10)
        return self._child([str(self.scripts / "rabbitmq-server")], output, environment)

    def _why_not(self) -> str:
        try:
            self.shake_hands()
        except TemporaryError as error:
            return str(error)
        return ""


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
