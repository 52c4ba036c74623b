"""The life of a server that runs as a child on loopback, said once for all of them.

It has a directory of its own unless it is given one; its start returns when it serves, and tells its last words when it
ends or is late; it is ended in order, or as by a power cut.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Final, Self

import psutil

from control.child import tied
from kernel.errors import PermanentError, TemporaryError

OUTPUT: Final = "out.log"
"""Where a server's own output goes, in its directory."""
STEP_S: Final = 0.1
_FAMILY_S: Final = 10.0
"""How long the other processes of a server may take to follow the first."""
_TAIL_LINES: Final = 6
_TAIL_LETTERS: Final = 800


def spawn(
    title: str, argv: Sequence[str], output: IO[bytes], cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that ends with the thread that calls this; what it writes goes to `output`.

    Raises:
        PermanentError: setpriv cannot be run.
    """
    try:
        return subprocess.Popen(
            tied(argv), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise PermanentError(f"{title} cannot be started: setpriv: {error.strerror}") from error


def wait_until_it_serves(
    title: str,
    process: subprocess.Popen[bytes],
    why_not: Callable[[], str],
    last_words: Callable[[], str],
    *,
    until_s: float,
    step_s: float = STEP_S,
) -> None:
    """Return when `why_not` has nothing to say any more.

    Raises:
        PermanentError: the process has ended; carries its last words.
        TemporaryError: it did not serve by `until_s` of the monotonic clock; says why not, with its last words.
    """
    why = ""
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise PermanentError(f"{title} ended with exit code {process.returncode}: {last_words()}")
        if not (why := why_not()):
            return
        time.sleep(step_s)
    raise TemporaryError(f"{title} was not ready in time{f' ({why})' if why else ''}: {last_words()}")


def last_words_of(paths: Sequence[Path], telling: Sequence[str], hidden: str = "") -> str:
    """Return what a server wrote last: lines with one of the words that tell why it ended, if there are any.

    `hidden` is a secret that is not to be shown.
    """
    lines: list[str] = []
    readable = False
    for path in paths:
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace")
            lines += (text.replace(hidden, "***") if hidden else text).splitlines()
            readable = True
    if not readable:
        return "(its output cannot be read)"
    return told_in(lines, telling) or "(it wrote nothing)"


def told_in(lines: Sequence[str], telling: Sequence[str]) -> str:
    """Return the last of the lines with one of the words that tell of errors, or else the last ones, in one line."""
    found = [line for line in lines if any(word in line for word in telling)] or lines
    return " / ".join(found[-_TAIL_LINES:])[:_TAIL_LETTERS]


class Housed(ABC):
    """What lives in a directory of its own, which is removed at the end, or in one it is given. A context manager."""

    house: ClassVar[str]
    """What its own directory is called after."""

    def __init__(self, directory: Path | None) -> None:
        """Nothing is made before `start`."""
        self._lasting = directory is not None
        self.directory = directory.absolute() if directory is not None else Path()
        self.ready_s = 0.0
        """Seconds from the start to ready."""

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and remove a directory of its own."""
        self.close()

    @abstractmethod
    def start(self) -> Self:
        """Start it, anew on the same data if it ran before; returns when it serves."""

    @abstractmethod
    def kill(self) -> None:
        """End it as a power cut would; its data stay."""

    def close(self) -> None:
        """End it at once and remove its directory, if that is one of its own."""
        self.kill()
        if not self._lasting and self.directory.name:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = Path()

    def _move_in(self) -> None:
        """Make its directory, if it is not there yet."""
        if not self._lasting and not self.directory.name:
            self.directory = Path(tempfile.mkdtemp(prefix=f"tapewatch-{self.house}-"))
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)


class LocalServer(Housed):
    """One server of one program, which may start processes of its own; they end with the thread that started it."""

    title: ClassVar[str]
    ready_within_s: ClassVar[float]
    step_s: ClassVar[float] = STEP_S
    grace_s: ClassVar[float] = 30.0
    """How long its first process may take to end in order."""
    ends_by: ClassVar[signal.Signals] = signal.SIGTERM
    """The signal that ends it in order."""
    outputs: ClassVar[tuple[str, ...]] = (OUTPUT,)
    """Files in its directory in which its last words may stand."""
    telling: ClassVar[tuple[str, ...]] = ()
    """Words of lines that tell why it ended."""
    password = ""

    def __init__(self, directory: Path | None) -> None:
        """Nothing is written or started before `start`."""
        super().__init__(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._companions: list[subprocess.Popen[bytes]] = []
        """What runs beside it only for its sake."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write what it needs into its directory, before each start."""

    @abstractmethod
    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start its first process."""

    @abstractmethod
    def _why_not(self) -> str:
        """Say why it does not serve yet; empty once it does."""

    def start(self, within_s: float | None = None) -> Self:
        """Start it, anew on the same data if it ran before; returns when it serves, its usual time at most.

        Raises:
            PermanentError: what it runs on is missing, or the server ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert self._process is None, f"{self.title} runs already"
        began = time.monotonic()
        until = began + (self.ready_within_s if within_s is None else within_s)
        try:
            self._move_in()
            self._prepare()
            with (self.directory / self.outputs[0]).open("ab") as output:
                self._process = self._launch(output)
            wait_until_it_serves(
                self.title, self._process, self._why_not, self.last_words, until_s=until, step_s=self.step_s
            )
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - began
        return self

    def stop(self) -> None:
        """End it in order; its data stay."""
        self._end(self.ends_by)

    def kill(self) -> None:
        """End every process of it as a power cut would; its data stay."""
        self._end(signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Its first process; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def pids(self) -> list[int]:
        """Every process of it, the first one first; none when that does not run."""
        return [one.pid for one in self._whole()] if self.pid is not None else []

    def last_words(self) -> str:
        """Return what it wrote last, for error messages."""
        return last_words_of([self.directory / name for name in self.outputs], self.telling, self.password)

    def _child(self, argv: Sequence[str], output: IO[bytes], env: Mapping[str, str] | None = None,
               cwd: Path | None = None) -> subprocess.Popen[bytes]:  # fmt: skip
        return spawn(self.title, argv, output, cwd or self.directory, env)

    def _whole(self) -> list[psutil.Process]:
        processes = [one for one in (self._process, *self._companions) if one is not None]
        return [one for each in processes for one in family_of(each.pid)]

    def _end(self, number: signal.Signals) -> None:
        whole = self._whole()
        if self._process is not None:
            for one in whole if number == signal.SIGKILL else whole[:1]:
                _signal(one, number)
            finish(self._process, self.grace_s)
        for companion in self._companions:
            finish(companion, 0.0)
        until = time.monotonic() + _FAMILY_S
        while any(runs(one) for one in whole) and time.monotonic() < until:
            time.sleep(STEP_S / 20)
        for one in whole:
            _signal(one, signal.SIGKILL)
        self._process, self._companions = None, []


def finish(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Wait for the end of a process, and kill it when it takes longer than it may."""
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def family_of(pid: int) -> Iterator[psutil.Process]:
    """Give a process and all that it has started, and they."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        yield first
        yield from first.children(recursive=True)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def runs(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that only waits for its new parent to notice its end does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
