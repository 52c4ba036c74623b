"""The bridge's file: which channels there are, where they lead, who is told, how patient it is.

Secrets are named by file. A wrong file is refused with one sentence that names the place. No secret is ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import yaml

from incidents.adapters.pager_http import check_address
from incidents.paging.channel import Target
from incidents.paging.channels import CHANNELS
from incidents.paging.policy import Policy
from kernel.errors import InputError

DEFAULT: Final = "default"
SECRET_LETTERS_MIN: Final = 8
_PHONE: Final = re.compile(r"\+[1-9]\d{6,14}")
_ACCOUNT: Final = re.compile(r"AC[0-9a-fA-F]{32}")
_SLACK: Final = re.compile(r"[CDG][A-Z0-9]{6,20}")
_RECIPIENTS: Final = {"sms": _PHONE, "call": _PHONE, "slack": _SLACK}
"""Channels whose pages name a recipient, and what one looks like. The others lead to one place."""
_URLS: Final = {
    "sms": "https://api.twilio.com", "call": "https://api.twilio.com", "slack": "https://slack.com",
    "pagerduty": "https://events.pagerduty.com", "opsgenie": "https://api.opsgenie.com",
}  # fmt: skip
"""The address of a channel that is told none; those of teams and zenduty are secrets and stand in a file."""
_NEEDS_SECRET: Final = frozenset({"sms", "call", "opsgenie", "pagerduty", "slack"})


class ChannelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel as the file tells it."""

    url: str = ""
    url_file: str = ""
    """File below `credentials` that holds the address, where the address is a secret."""
    secret_file: str = ""
    """File below `credentials` that holds the token or key."""
    account: str = ""
    sender: str = ""
    to: dict[str, list[str]] = {}
    """Who is told, by team; `default` for every other team."""
    receipt_s: float | None = None
    """A receipt missing for so long, in seconds, is overdue."""


class Patience(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How patient the bridge is, in seconds."""

    first_wait_s: float = 1.0
    wait_s_max: float = 60.0
    give_up_s: float = 3600.0
    unconfirmed_s: float = 3600.0
    escalate_s: float = 60.0
    poll_first_s: float = 1.0
    poll_s_max: float = 30.0
    timeout_s: float = 10.0


class BridgeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    channels: dict[str, ChannelFile]
    credentials: str = "."
    """Directory of the secrets' files; a relative one lies beside the bridge's file."""
    public_url: str = ""
    """Where Twilio's callbacks reach this bridge; empty: receipts are asked for instead."""
    loopback: bool = False
    """Speak to this machine and nothing else: for tests."""
    escalation: dict[str, str] = {}
    """The channel that a level-1 page goes to next."""
    patience: Patience = Patience()


@dataclass(frozen=True)
class Bound:
    """A channel bound to where it leads."""

    target: Target
    to: Mapping[str, Sequence[str]]
    receipt_s: float


@dataclass(frozen=True)
class BridgeConfig:
    """What the bridge works with."""

    channels: Mapping[str, Bound]
    policy: Policy
    escalation: Mapping[str, str]
    public_url: str
    loopback: bool
    timeout_s: float
    secrets: tuple[str, ...] = field(repr=False)

    def recipients(self, channel: str, team: str) -> Sequence[str]:
        """Return who is told on a channel; the one place it leads to is the empty name."""
        to = self.channels[channel].to
        return to.get(team) or to.get(DEFAULT) or ("",)


def load_bridge(path: Path) -> BridgeConfig:
    """Read the bridge's file and the secrets it names.

    Raises:
        InputError: something in it is wrong; says where and what.
    """
    told = _read(path)
    if not told.channels:
        raise InputError(f"{path}: channels", "is empty", right=f"name one of {', '.join(CHANNELS)}")
    folder = path.parent / told.credentials
    bound = {name: _bind(path, folder, name, one, told) for name, one in told.channels.items()}
    _check_escalation(path, told)
    _check_patience(path, told.patience)
    _check_public(path, told)
    patience = msgspec.to_builtins(told.patience)
    timeout_s = patience.pop("timeout_s")
    secrets = {text for one in bound.values() for text in (one.target.secret, one.target.url)} - set(_URLS.values())
    return BridgeConfig(
        channels=bound, policy=Policy(**patience), escalation=told.escalation, public_url=told.public_url.rstrip("/"),
        loopback=told.loopback, timeout_s=timeout_s, secrets=tuple(sorted(secrets - {""})),
    )  # fmt: skip


def _read(path: Path) -> BridgeFile:
    try:
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), type=BridgeFile)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", right="see docs/receivers.md") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), " ".join(str(error).split())[:200], right="correct the YAML") from error
    except msgspec.ValidationError as error:
        raise InputError(str(path), str(error), right="see docs/receivers.md") from error


def _bind(path: Path, folder: Path, name: str, told: ChannelFile, whole: BridgeFile) -> Bound:
    where = f"{path}: channels.{name}"
    if name not in CHANNELS:
        raise InputError(where, "is no channel", right=f"there are {', '.join(CHANNELS)}")
    if told.url and told.url_file:
        raise InputError(where, "has url and url_file", right="give one of them")
    url = _secret(f"{where}.url_file", folder, told.url_file) if told.url_file else told.url or _URLS.get(name, "")
    if not url:
        raise InputError(f"{where}.url_file", "is missing", right="the address is a secret: name the file it stands in")
    try:
        check_address(url, CHANNELS[name].hosts, loopback=whole.loopback)
    except InputError as error:
        raise InputError(where, f"{error.where} {error.problem}", right=error.right) from error
    if name in _NEEDS_SECRET and not told.secret_file:
        raise InputError(f"{where}.secret_file", "is missing", right="name the file that holds the key or token")
    _check_recipients(where, name, told)
    receipt_s = CHANNELS[name].receipt_s if told.receipt_s is None else told.receipt_s
    account = _origin(url) if name == "zenduty" and whole.loopback else told.account
    secret = _secret(f"{where}.secret_file", folder, told.secret_file) if told.secret_file else ""
    return Bound(Target(url, secret, account, told.sender), told.to, receipt_s)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _check_recipients(where: str, name: str, told: ChannelFile) -> None:
    right = _RECIPIENTS.get(name)
    if right is None:
        if told.to:
            raise InputError(f"{where}.to", "is given", right="this channel leads to one place: leave it out")
        return
    if not told.to.get(DEFAULT):
        raise InputError(f"{where}.to.{DEFAULT}", "names nobody", right="a page always needs somebody to go to")
    for team, people in told.to.items():
        for person in people:
            if not right.fullmatch(person):
                raise InputError(f"{where}.to.{team}", f"{person[:20]!r} is wrong", right=f"write {right.pattern}")
    if name != "slack" and not _ACCOUNT.fullmatch(told.account):
        raise InputError(f"{where}.account", "is no account of Twilio", right="AC and 32 hexadecimal digits")
    if name != "slack" and not _PHONE.fullmatch(told.sender):
        raise InputError(f"{where}.sender", "is no telephone number", right="write it as +4930123456")


def _secret(where: str, folder: Path, name: str) -> str:
    """Return what a secret's file holds; the name may not lead out of the folder."""
    if Path(name).name != name:
        raise InputError(where, f"{name[:40]!r} is a path", right="name a file of the credentials' directory")
    try:
        mode, text = (folder / name).stat().st_mode, (folder / name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(where, f"{folder / name} cannot be read", right="one line of ASCII, mode 0600") from error
    if mode & 0o077:
        raise InputError(where, f"{folder / name} is open to others", right=f"chmod 600 {folder / name}")
    if len(text) < SECRET_LETTERS_MIN or not text.isprintable() or " " in text:
        raise InputError(
            where, f"{folder / name} holds no secret", right=f"one word of {SECRET_LETTERS_MIN} letters or more"
        )
    return text


def _check_escalation(path: Path, told: BridgeFile) -> None:
    for channel in told.escalation:
        met, at = [channel], channel
        while at in told.escalation:
            at = told.escalation[at]
            if at in met:
                raise InputError(f"{path}: escalation.{channel}", "leads back to itself", right="let it end somewhere")
            met.append(at)
        for one in met:
            if one not in told.channels:
                raise InputError(f"{path}: escalation.{channel}", f"{one[:40]!r} is no channel of this file")


def _check_patience(path: Path, patience: Patience) -> None:
    for name, value in msgspec.to_builtins(patience).items():
        if not 0 < value <= 7 * 86_400:
            raise InputError(f"{path}: patience.{name}", f"is {value}", right="seconds, more than 0, a week at most")


def _check_public(path: Path, told: BridgeFile) -> None:
    if told.public_url and not told.loopback and not told.public_url.startswith("https://"):
        raise InputError(f"{path}: public_url", "is not https", right="receipts name pages: let them come encrypted")
