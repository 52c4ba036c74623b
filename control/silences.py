"""Silences of Alertmanager: set with an owner, a reason and an end, listed, ended. By its API, version 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from control.calls import call
from kernel.errors import InputError, PermanentError
from kernel.time import HOUR, Duration, Instant, from_rfc3339, to_rfc3339

LONGEST: Final = Duration(24 * HOUR)
"""What a silence may last when nothing longer is allowed: who still wants it tomorrow says so again."""
_MATCHER: Final = re.compile(r'([a-zA-Z_]\w*)(=~|!~|!=|=)"?(.*?)"?')
_ID: Final = re.compile(r"[0-9a-f-]{36}")


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """A silence as it stands."""

    id: str
    matchers: tuple[str, ...]
    state: str
    """`pending`, `active` or `expired`."""
    by: str
    why: str
    starts_at: Instant
    ends_at: Instant


def matcher_of(text: str) -> dict[str, Any]:
    """Read a matcher such as `alertname=GatewayDown`, `symbol=~A.+` or `team!=x`.

    Raises:
        InputError: it is none, or would fit everything.
    """
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise InputError(f"matcher {text[:60]!r}", "is no matcher", right="write alertname=GatewayDown or symbol=~A.+")
    name, relation, value = found.groups()
    if "~" in relation:
        try:
            re.compile(value)
        except re.error as error:
            raise InputError(f"matcher {text[:60]!r}", f"is no regular expression: {error.msg}") from None
    return {"name": name, "value": value, "isRegex": "~" in relation, "isEqual": not relation.startswith("!")}


def refuse_unknown(matchers: Sequence[str], alerts: Collection[str]) -> None:
    """Refuse a silence for an alert that no rule has: a slip of the pen would keep nothing quiet, and say that it does.

    Raises:
        InputError: a matcher asks for an `alertname` that none of `alerts` has; names a near one.
    """
    for text in matchers:
        asked = matcher_of(text)
        if asked["name"] != "alertname" or not asked["isEqual"]:
            continue
        wanted = re.compile(asked["value"] if asked["isRegex"] else re.escape(asked["value"]))
        if not any(wanted.fullmatch(name) for name in alerts):
            near = difflib.get_close_matches(asked["value"], sorted(alerts), n=1)
            right = f"did you mean {near[0]}?" if near else "`tapewatch alerts check` knows the rules"
            raise InputError(f"matcher {text[:60]!r}", "fits no alert of the rules", right=f"{right} --even-so sets it")


def add(
    url: str, matchers: Sequence[str], *, by: str, why: str, now: Instant, length: Duration, longest: Duration = LONGEST
) -> str:
    """Set a silence; return its id.

    Raises:
        InputError: a matcher, the owner, the reason or the length is wrong.
        TapewatchError: Alertmanager does not answer, or refuses it.
    """
    _check(matchers, by, why, length, longest)
    body = {
        "matchers": [matcher_of(text) for text in matchers], "startsAt": to_rfc3339(now),
        "endsAt": to_rfc3339(now + length), "createdBy": by, "comment": why,
    }  # fmt: skip
    return _id(call("POST", f"{url}/api/v2/silences", body=body))


def edit(url: str, id_: str, *, by: str, why: str, now: Instant, length: Duration, longest: Duration = LONGEST) -> str:
    """Give a silence another end, counted from now; return the id it has then.

    Alertmanager may end the old one and make another with an id of its own: only the returned one counts.

    Raises:
        InputError: the id, the owner, the reason or the length is wrong, or the silence is over.
        TapewatchError: Alertmanager does not answer, or refuses it.
    """
    told = _known(url, id_)
    if told["status"]["state"] == "expired":
        raise InputError(f"silence {id_}", "is over", right="set a new one")
    _check(["x=y"], by, why, length, longest)
    body = {
        "id": id_, "matchers": told["matchers"], "startsAt": told["startsAt"], "endsAt": to_rfc3339(now + length),
        "createdBy": by, "comment": why,
    }  # fmt: skip
    return _id(call("POST", f"{url}/api/v2/silences", body=body))


def expire(url: str, id_: str) -> None:
    """End a silence now.

    Raises:
        InputError: it is no id.
        TapewatchError: Alertmanager does not answer, or knows none of that id.
    """
    _known(url, id_)  # 0.25 answers 500 when it is to end one that it does not know
    call("DELETE", f"{url}/api/v2/silence/{id_}")


def listed(url: str, *, expired: bool = False) -> list[Silence]:
    """Return the silences, the next to end first.

    Raises:
        TapewatchError: Alertmanager does not answer, or in other words.
    """
    told = call("GET", f"{url}/api/v2/silences")
    try:
        found = [_silence(one) for one in told]
    except (KeyError, TypeError, ValueError) as error:
        raise PermanentError(f"{url} does not answer as Alertmanager: {error}") from error
    return sorted((one for one in found if expired or one.state != "expired"), key=lambda one: one.ends_at)


def _silence(told: dict[str, Any]) -> Silence:
    signs = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
    return Silence(
        id=str(told["id"]), state=str(told["status"]["state"]), by=str(told["createdBy"]), why=str(told["comment"]),
        matchers=tuple(
            f"{one['name']}{signs[bool(one['isRegex']), bool(one.get('isEqual', True))]}\"{one['value']}\""
            for one in told["matchers"]
        ),
        starts_at=from_rfc3339(told["startsAt"]), ends_at=from_rfc3339(told["endsAt"]),
    )  # fmt: skip


def _check(matchers: Sequence[str], by: str, why: str, length: Duration, longest: Duration) -> None:
    if not matchers:
        raise InputError("silence", "has no matcher", right="write at least one, such as alertname=GatewayDown")
    if all(map(_takes_all, map(matcher_of, matchers))):
        raise InputError("silence", "would silence everything", right="name an alert, a team or a service")
    if not by.strip():
        raise InputError("--by", "is empty", right="say who is asked about it")
    if not why.strip():
        raise InputError("--why", "is empty", right="say why, so that others can judge whether it still holds")
    if not 0 < length <= longest:
        raise InputError("--for", "is too long or nothing", right=f"at most {longest // HOUR} h; --max allows more")


def _takes_all(matcher: dict[str, Any]) -> bool:
    """Tell whether a matcher fits almost any label: it asks for nothing, or forbids nothing but its absence."""
    value = matcher["value"]
    if not matcher["isRegex"]:
        return value == "" and not matcher["isEqual"]
    fits = re.fullmatch(value, "An unlikely/value") is not None
    return fits is matcher["isEqual"]


def _known(url: str, id_: str) -> dict[str, Any]:
    right = "`tapewatch alerts silence list` shows them"
    if _ID.fullmatch(id_) is None:
        raise InputError(f"silence {id_[:40]!r}", "is no id", right=right)
    try:
        told = call("GET", f"{url}/api/v2/silence/{id_}")
    except PermanentError as error:
        raise InputError(f"silence {id_}", "is not known", right=right) from error
    assert isinstance(told, dict)
    return told


def _id(told: Any) -> str:
    if not isinstance(told, dict) or "silenceID" not in told:
        raise PermanentError("Alertmanager told no id of the silence")
    return str(told["silenceID"])
