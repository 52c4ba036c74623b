"""An estate's state directory: one holder at a time, one version, its secrets, its instruments."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from control.addresses import write_atomically
from control.child import now
from control.layout import STATE_VERSION, Layout
from exchange.adapters.file_log import list_segments
from exchange.adapters.journal_place import count_parts, noted, part_directory
from exchange.adapters.listing_file import listing_of, write_listing
from exchange.listing import Listing
from exchange.types import Instrument, Symbol, Ticks
from kernel.chance import stream
from kernel.errors import InputError, PermanentError
from kernel.time import Instant, to_rfc3339

SECRETS: Final = ("admin", "trade", "webhook", "timeline")
SECRET_LETTERS_MIN: Final = 16
_CONSONANTS: Final = "BDFGKLMNPRSTVZ"
_VOWELS: Final = "AEIOU"


class Holder(msgspec.Struct, frozen=True):
    """Who runs the estate of a state directory."""

    pid: int
    since: Instant


class StateDir:
    """A state directory that is ours until `release`."""

    def __init__(self, root: Path) -> None:
        """Take the directory, making it if need be.

        Raises:
            PermanentError: somebody holds it, it is of another version, or it cannot be written.
        """
        self.layout = Layout(root.absolute())
        try:
            self.layout.root.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(root, error) from error
        try:
            self._take()
            self._check_version()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PermanentError(
                f"{self.layout.root} is held by {describe_holder(self.layout)}; `tapewatch down` stops it"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, msgspec.json.encode(Holder(os.getpid(), now())), 0)

    def _check_version(self) -> None:
        try:
            found = self.layout.version.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            write_atomically(self.layout.version, f"{STATE_VERSION}\n".encode())
            return
        if found != str(STATE_VERSION):
            raise PermanentError(
                f"{self.layout.root} is of state version {found[:20] or '(none)'}, this program writes "
                f"version {STATE_VERSION}: use the program it belongs to, or another directory (TAPEWATCH_STATE)"
            )

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._descriptor)

    def fill(self, *, symbols: int, seed: int, engines: int = 1) -> Listing:
        """Make what every process needs: directories, secrets (0600), instruments; what is there is kept.

        Raises:
            PermanentError: something cannot be written, or the directory was begun with another number of engines.
            InputError: the instruments or secrets that are there cannot be read.
        """
        layout = self.layout
        _check_engines(layout, engines)
        try:
            for path in (layout.journal, layout.events, layout.snapshots, layout.load, layout.reports):
                path.mkdir(parents=True, exist_ok=True)
            for path in (layout.ledger, layout.incidents, layout.effects, layout.output("x"), layout.config("x")):
                path.parent.mkdir(parents=True, exist_ok=True)
            layout.secret("x").parent.mkdir(mode=0o700, exist_ok=True)
            for name in SECRETS:
                if not layout.secret(name).exists():
                    write_atomically(layout.secret(name), secrets.token_urlsafe(32).encode(), mode=0o600)
                read_secret(layout, name)
            kept = layout.root / "instruments.json"
            if not kept.exists():
                write_atomically(kept, write_listing(Listing(generate_instruments(symbols, seed))))
            return listing_of(kept.read_bytes(), str(kept))
        except OSError as error:
            raise unwritable(layout.root, error) from error

    def share(self, engines: int) -> None:
        """Give each of several engines its part of the journal's directory: from here on their number stands.

        Raises:
            PermanentError: it cannot be written.
        """
        try:
            for place in range(engines if engines > 1 else 0):
                part_directory(self.layout.journal, place).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.layout.root, error) from error


def _check_engines(layout: Layout, engines: int) -> None:
    """Refuse a directory whose journal is shared by another number of engines: symbols would move.

    Raises:
        PermanentError: it is.
    """
    before = count_parts(layout.journal)
    if not before and (list_segments(layout.journal) or noted(layout.journal) is not None):
        before = 1
    if before and before != engines:
        several = f"{before} engines" if before > 1 else "1 engine"
        raise PermanentError(
            f"{layout.root} was begun with {several}, and engines is {engines}: symbols would move from one journal to "
            f"another; set TAPEWATCH_ENGINES={before}, or take another directory (TAPEWATCH_STATE)"
        )


def read_secret(layout: Layout, name: str) -> str:
    """Return one of the secrets.

    Raises:
        InputError: the file holds no secret.
        OSError: it cannot be read.
    """
    text = layout.secret(name).read_bytes().strip()
    if len(text) < SECRET_LETTERS_MIN or not text.isascii() or not text.decode().isprintable():
        raise InputError(
            str(layout.secret(name)),
            f"holds no secret of at least {SECRET_LETTERS_MIN} letters",
            right="restore it from a copy" if name == "timeline" else "delete it and start anew: a new one is made",
        )
    return text.decode()


def unwritable(root: Path, error: OSError) -> PermanentError:
    """Return the sentence for a directory that cannot be written."""
    why = "a file is in its way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return PermanentError(f"the state directory {root} cannot be written ({why}): name another with TAPEWATCH_STATE")


def is_held(layout: Layout) -> bool:
    """Tell whether an estate runs in a state directory now."""
    return is_locked(layout.lock)


def is_locked(lock: Path) -> bool:
    """Tell whether somebody holds a lock file now. The kernel knows: a lock ends with its holder."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def describe_holder(layout: Layout) -> str:
    """Tell who holds a state directory, as far as its lock file says."""
    try:
        holder = msgspec.json.decode(layout.lock.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return "another process"
    return f"pid {holder.pid} since {to_rfc3339(holder.since)}"


def generate_instruments(count: int, seed: int) -> tuple[Instrument, ...]:
    """Return `count` invented instruments, the same for the same seed; more of them never change the first ones."""
    chance = stream(seed, "instruments")
    found: dict[str, Instrument] = {}
    while len(found) < count:
        letters = (
            chance.choice(_CONSONANTS),
            chance.choice(_VOWELS),
            chance.choice(_CONSONANTS),
            chance.choice(_VOWELS),
        )
        reference = chance.randrange(1_000, 20_000, 5)
        symbol = "".join(letters)
        found.setdefault(symbol, Instrument(Symbol(symbol), Ticks(reference), Ticks(reference // 5)))
    return tuple(found.values())
