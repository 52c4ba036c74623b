"""Dead letters of an estate's brokers, for a person: found by its files, shown without secrets, kept account of."""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control.config import KafkaAccess, RabbitAccess, RoleConfig, load_config, place_of
from control.faults import connect
from control.layout import Layout
from exchange.letters import Deed, Letter, Letters
from kernel.errors import InputError, PermanentError, TapewatchError
from kernel.time import Clock, to_rfc3339
from monitor.logs import MIN_SECRET_LENGTH, REDACTED, masked

ASKED: Final = "settlement-1"
"""The replica whose configuration says how the brokers are reached: it reads from both."""


class LetterDesk:
    """The dead letters of several brokers. What is done with one is on the disk before the letter goes."""

    def __init__(self, brokers: Mapping[str, Letters], account: Path, clock: Clock) -> None:
        """Nothing is asked yet.

        Args:
            brokers: by what the ids of their letters begin with.
            account: JSON lines of what was done with which letter, by whom; each holds the letter itself.
            clock: for them.
        """
        self._brokers: Final = brokers
        self._account: Final = account
        self._clock: Final = clock

    async def look(self, most: int) -> tuple[list[Letter], list[TapewatchError]]:
        """Return the letters, at most so many of each place, and what is wrong with brokers that did not answer."""
        found: list[Letter] = []
        wrong: list[TapewatchError] = []
        for letters in self._brokers.values():
            try:
                found += await letters.look(most)
            except TapewatchError as error:
                wrong.append(error)
        return found, wrong

    async def one(self, name: str, most: int) -> Letter:
        """Return a letter by its id.

        Raises:
            InputError: it is not there.
            TemporaryError: its broker is away.
        """
        for letter in await self._broker(name).look(most):
            if letter.id == name:
                return letter
        raise _unknown(name)

    async def settle(self, ids: Collection[str], deed: Deed, by: str) -> list[Letter]:
        """Put letters back or drop them. Those of one broker together: an unknown one and nothing is done there.

        Raises:
            InputError: one is not there.
            TemporaryError: a broker is away or takes nothing.
            PermanentError: a letter must not be put back, or the account cannot be written.
        """
        parts: dict[str, list[str]] = {}
        for name in ids:
            self._broker(name)
            parts.setdefault(name.partition("-")[0], []).append(name)
        done: list[Letter] = []
        for kind, names in parts.items():
            done += await self._brokers[kind].settle(names, deed, lambda letter: self._keep(letter, deed, by))
        return done

    def _broker(self, name: str) -> Letters:
        found = self._brokers.get(name.partition("-")[0])
        if found is None:
            raise _unknown(name)
        return found

    def _keep(self, letter: Letter, deed: Deed, by: str) -> None:
        told = {
            "at": to_rfc3339(self._clock.now()), "by": by, "deed": deed, "id": letter.id, "lies_in": letter.lies_in,
            "came_from": letter.came_from, "key": letter.key, "why": letter.why, "copies": letter.copies,
            "body": base64.b64encode(letter.body).decode(),
        }  # fmt: skip
        try:
            self._account.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._account, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, msgspec.json.encode(told) + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            why = f"what is done with {letter.id} cannot be kept ({error.strerror}): it stays"
            raise PermanentError(f"{self._account}: {why}") from error


def open_desk(layout: Layout, clock: Clock) -> LetterDesk:
    """Return the desk of the estate that runs.

    Raises:
        TemporaryError: none runs.
        InputError: it has no broker.
    """
    connect(layout.root)
    config = _config(layout)
    brokers: dict[str, Letters] = {}
    if config.rabbit is not None:
        brokers["rabbit"] = _of_rabbit(config.rabbit)
    if config.kafka is not None:
        brokers["kafka"] = _of_kafka(config.kafka)
    if not brokers:
        raise InputError(str(layout.root), "runs without brokers", right="`tapewatch up --estate distributed` has them")
    return LetterDesk(brokers, layout.letter_deeds, clock)


def _config(layout: Layout) -> RoleConfig:
    path = layout.config(ASKED)
    try:
        return load_config(path)
    except OSError as error:
        raise PermanentError(f"{path}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise PermanentError(f"{path}: no configuration of this version ({error}); start the estate anew") from error


def _of_rabbit(access: RabbitAccess) -> Letters:
    # Here and below: a client's library would cost every command of the terminal its start.
    from exchange.adapters.rabbit_letters import RabbitLetters
    from exchange.adapters.rabbit_link import RabbitLink

    password = ""
    if access.password_file:
        try:
            password = Path(access.password_file).read_text().strip()
        except OSError as error:
            raise PermanentError(f"{access.password_file}: cannot be read ({error.strerror})") from error
    return RabbitLetters(RabbitLink(access.url, password=password, name="tapewatch dead-letters"))


def _of_kafka(access: KafkaAccess) -> Letters:
    from exchange.adapters.kafka_letters import KafkaLetters

    return KafkaLetters(place_of(access))


def _unknown(name: str) -> InputError:
    right = "`tapewatch exchange dead-letters list` names those that are"
    return InputError(f"dead letter {name}", "is not there", right=right)


# --- showing a body -------------------------------------------------------------------------------------------------


def shown(body: bytes, secrets: Iterable[bytes] = ()) -> str:
    r"""Return a body for a terminal: secrets blotted out, and what a terminal obeys written out.

    A body of JSON is laid out, and what stands under a name that tells of a secret is blotted out; of another only the
    secrets of the estate are.

    >>> print(shown(b'{"password":"sesame","to":"ann"}'))
    {
      "password": "[redacted]",
      "to": "ann"
    }
    >>> shown(b"\x01\xff sesame, open", [b"sesame, open"])
    '\\x01\\xff [redacted]'
    """
    for secret in secrets:
        body = body.replace(secret, REDACTED.encode())
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="backslashreplace")
    else:
        text = msgspec.json.format(msgspec.json.encode(masked(value))).decode()
    return "".join(char if char.isprintable() or char == "\n" else _written_out(char) for char in text)


def _written_out(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"  # noqa: PLR2004 - two digits


def secrets_of(layout: Layout) -> list[bytes]:
    """Return what must not be shown: the words in the estate's files of secrets, and the keys in its key files."""
    found: set[bytes] = set()
    for path in sorted(layout.secret("any").parent.glob("*")):
        try:
            data = path.read_bytes().strip()
        except OSError:  # not ours to read, so no body that we can show was written with it
            continue
        found.update(_private(data) if path.suffix == ".json" else {data})
    return sorted((each for each in found if len(each) >= MIN_SECRET_LENGTH), key=len, reverse=True)


def _private(data: bytes) -> set[bytes]:
    """Return the private and shared keys of a JWK set."""
    try:
        told: Any = msgspec.json.decode(data)
        return {str(key[name]).encode() for key in told["keys"] for name in ("d", "k") if key.get(name)}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return set()
