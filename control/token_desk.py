"""The keys of a local estate's gateways, and tokens for trials: made, rotated, taken out, by a person's hand.

Who runs a real exchange has an identity provider that mints tokens; gateways then need its public keys in the key
file, and nothing here. Two files: the keys that check (gateways read them) and those that sign (only these verbs do).
A new key is put where it checks before it is put where it signs, so that no token is refused for want of it for longer
than the second after which gateways look again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from control.addresses import write_atomically
from control.layout import Layout
from control.state_dir import unwritable
from exchange.adapters.tokens import (
    ALGORITHMS,
    MAX_ACCOUNTS,
    MAX_LIFETIME_S,
    Claims,
    Identifier,
    Jwk,
    KeyFile,
    make_key,
    mint,
    public,
    read_keys,
)
from exchange.bearer import TokenScope
from kernel.errors import InputError
from kernel.time import SECOND, Instant, to_rfc3339


class KeyLine(msgspec.Struct, frozen=True):
    """A key as it may be shown."""

    kid: str
    algorithm: str
    signs: bool
    """Whether new tokens are signed with it."""


@dataclass(frozen=True)
class TokenWish:
    """What a token is to say."""

    subject: str
    accounts: Sequence[str]
    scopes: Sequence[str]
    for_s: float
    issuer: str
    audience: str


def list_keys(layout: Layout) -> list[KeyLine]:
    """Return the keys that check tokens; raises as `read_keys`."""
    signing = next(iter(read_keys(layout.token_signing)), "") if layout.token_signing.exists() else ""
    return [KeyLine(key.kid, key.alg, key.kid == signing) for key in read_keys(layout.token_keys).values()]


def add_key(layout: Layout, algorithm: str) -> KeyLine:
    """Make a new key that signs from now on; the ones before go on checking.

    Raises:
        InputError: there is no such algorithm, or a key file cannot be read.
        PermanentError: a file cannot be written.
    """
    if algorithm not in ALGORITHMS:
        raise InputError("algorithm", f"there is no {algorithm[:20]!r}", right=f"there are {', '.join(ALGORITHMS)}")
    day = to_rfc3339(Instant(time.time_ns()))[:10].replace("-", "")
    key = make_key(f"{day}-{secrets.token_hex(4)}", algorithm)
    checking = [*_known(layout.token_keys), public(key)]
    signing = [key, *_known(layout.token_signing)]
    _write(layout, layout.token_keys, checking)
    _write(layout, layout.token_signing, signing)
    return KeyLine(key.kid, key.alg, signs=True)


def drop_key(layout: Layout, kid: str) -> None:
    """Take a key out: its tokens are refused from now on, and sessions they opened end.

    Raises:
        InputError: there is no such key, or it is the last one.
        PermanentError: a file cannot be written.
    """
    checking = read_keys(layout.token_keys)
    if kid not in checking:
        raise InputError("kid", f"there is no key {kid[:70]!r}", right=f"there are {', '.join(checking)}")
    if len(checking) == 1:
        raise InputError("kid", "it is the last key", right="make another first: `tapewatch exchange token rotate`")
    signing = [key for key in _known(layout.token_signing) if key.kid != kid]
    if signing:
        _write(layout, layout.token_signing, signing)
    else:
        layout.token_signing.unlink(missing_ok=True)
    _write(layout, layout.token_keys, [key for key in checking.values() if key.kid != kid])


def mint_token(layout: Layout, wish: TokenWish) -> str:
    """Return a signed token; the first one makes the first key.

    Raises:
        InputError: the wish is none a gateway would take.
        PermanentError: a key had to be made and cannot be written.
    """
    _refuse_unfit(wish)
    if not layout.token_signing.exists():
        add_key(layout, ALGORITHMS[0])
    key = next(iter(read_keys(layout.token_signing).values()))
    now = time.time_ns() // SECOND
    claims = Claims(
        wish.issuer, wish.audience, wish.subject, now + wish.for_s, now, now, " ".join(wish.scopes),
        tuple(wish.accounts), secrets.token_hex(8),
    )  # fmt: skip
    return mint(key, claims)


def _refuse_unfit(wish: TokenWish) -> None:
    unknown = [one for one in wish.scopes if one not in set(TokenScope)]
    if unknown or not wish.scopes:
        what = f"there is no scope {unknown[0][:20]!r}" if unknown else "none is given"
        raise InputError("scope", what, right=f"there are {', '.join(TokenScope)}")
    if not 0 < wish.for_s <= MAX_LIFETIME_S:
        raise InputError("for", "no token lasts so long", right=f"from 1s to {MAX_LIFETIME_S // 3600}h")
    if len(wish.accounts) > MAX_ACCOUNTS:
        raise InputError("account", f"{len(wish.accounts)} are too many", right=f"at most {MAX_ACCOUNTS}")
    for name, value in [("subject", wish.subject), *(("account", one) for one in wish.accounts)]:
        try:
            msgspec.convert(value, Identifier)
        except msgspec.ValidationError:
            right = "1 to 64 printable ASCII characters, no spaces"
            raise InputError(name, f"{value[:70]!r} is none", right=right) from None
    if not wish.accounts and TokenScope.ADMIN not in wish.scopes:
        raise InputError("account", "none is named, so the token would open nothing", right="such as --account ann")


def _known(path: Path) -> list[Jwk]:
    return list(read_keys(path).values()) if path.exists() else []


def _write(layout: Layout, path: Path, keys: Sequence[Jwk]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(KeyFile(tuple(keys))), indent=2), mode=0o600)
    except OSError as error:
        raise unwritable(layout.root, error) from error


def describe(lines: Sequence[KeyLine]) -> str:
    """Return the keys as lines of text, the oldest first."""
    return "\n".join(f"{one.kid}  {one.algorithm}{'  signs' if one.signs else ''}" for one in lines)


def make_first_key(layout: Layout) -> None:
    """Make a key where there is none, so that an estate that takes signed tokens can start.

    Raises:
        PermanentError: it cannot be written.
    """
    if not layout.token_keys.exists():
        add_key(layout, ALGORITHMS[0])
