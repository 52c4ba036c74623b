"""Signed tokens (JWT, RFC 7519) and the keys they are signed with, so that nobody but their bearer trades an account.

    token -> its `kid` names a key of the key file -> **the key** says the algorithm -> signature -> claims -> Bearer

- EdDSA (Ed25519) or HS256, as each key's `alg` says. The token's header must say the same, and decides nothing.
- `iss`, `aud`, `sub`, `exp`, `nbf`, `iat` must all be there. `scope` is a list in words, `accounts` a list of accounts.
- The key file is a JWK set (RFC 7517). It is looked at once a second: a key is added before it signs, and taken out
  when no token of it is to be taken any more, which ends the sessions it opened.
- A token that was checked is remembered by its digest until it expires; the token itself is kept nowhere.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from exchange.bearer import Bearer, TokenFault, TokenScope
from exchange.ports import Log
from exchange.types import MAX_ID_LENGTH, AccountId
from kernel.errors import InputError
from kernel.time import SECOND, Instant

EDDSA: Final = "EdDSA"
HS256: Final = "HS256"
ALGORITHMS: Final = (EDDSA, HS256)
ISSUER: Final = "tapewatch"
AUDIENCE: Final = "order-entry"
LEEWAY_S: Final = 5
"""What the clocks of those who sign and of this machine may differ by."""
MAX_LIFETIME_S: Final = 24 * 3600
"""A token that lasts longer is not taken: what is stolen ends by itself."""
MAX_TOKEN_BYTES: Final = 4096
"""A hundred accounts fit; a longer one is refused before anything of it is read."""
MAX_ACCOUNTS: Final = 100
MIN_HS256_BYTES: Final = 32
"""As long as the digest (RFC 7518, 3.2)."""
LOOK_S: Final = 1.0
MAX_REMEMBERED: Final = 4096
MAX_KEYS: Final = 100

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[!-~]+$")]


class Jwk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key of a key file: Ed25519 (`kty` OKP: `x`, and `d` where it signs) or a shared one (`kty` oct: `k`)."""

    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    kty: str
    alg: str
    crv: str = ""
    x: str = ""
    d: str = ""
    k: str = ""
    use: str = ""

    def __repr__(self) -> str:
        """Name the key without what is secret of it."""
        return f"Jwk(kid={self.kid!r}, alg={self.alg!r})"


class KeyFile(msgspec.Struct, frozen=True):
    """A JWK set."""

    keys: Annotated[tuple[Jwk, ...], msgspec.Meta(max_length=MAX_KEYS)]


class Claims(msgspec.Struct, frozen=True):
    """What a token must say, and what it may. Times are seconds since 1970."""

    iss: str
    aud: str | tuple[str, ...]
    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[!-~]+$")]
    exp: float
    nbf: float
    iat: float
    scope: str = ""
    accounts: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=MAX_ACCOUNTS)] = ()
    jti: str | None = None


class TokenError(Exception):
    """A token is not taken. The words are ours: nothing of the token stands in them."""

    def __init__(self, fault: TokenFault, words: str) -> None:
        super().__init__(f"token: {words}")
        self.fault: Final = fault


def read_keys(path: Path) -> dict[str, Jwk]:
    """Read a key file; return its keys by `kid`. Messages name keys by `kid` only.

    Raises:
        InputError: it cannot be read, or holds a key that cannot be used.
    """
    right = "make one with `tapewatch exchange token rotate`"
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
    except OSError as error:
        raise InputError(str(path), f"cannot read the keys ({error.strerror})", right=right) from error
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec's sentence names the place and the kind, never the value.
        words = str(error) if isinstance(error, msgspec.ValidationError) else "no JSON"
        raise InputError(str(path), f"is no key file ({words})", right=right) from None
    found: dict[str, Jwk] = {}
    for key in keys:
        why = _flaw(key) or ("is there twice" if key.kid in found else "")
        if why:
            raise InputError(str(path), f"the key {key.kid!r} {why}", right=right)
        found[key.kid] = key
    if not found:
        raise InputError(str(path), "holds no key", right=right)
    return found


def _flaw(key: Jwk) -> str:
    """Return what is wrong with a key; nothing if it can be used."""
    if key.alg not in ALGORITHMS:
        return f"has an algorithm that is none of {', '.join(ALGORITHMS)}"
    if (key.kty, key.crv) != (("OKP", "Ed25519") if key.alg == EDDSA else ("oct", "")):
        return f"is not of the kind that {key.alg} needs"
    if key.use not in {"", "sig"}:
        return "is for another use than signatures"
    if key.alg == HS256 and len(_unpacked(key.k)) < MIN_HS256_BYTES:
        return f"is shorter than {MIN_HS256_BYTES} bytes"
    try:
        jwk(key)
    except (jwt.PyJWTError, ValueError):
        return "cannot be used"
    return ""


def _unpacked(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
    except (ValueError, binascii.Error):
        return b""


def jwk(key: Jwk) -> jwt.PyJWK:
    """Return a key as the library wants it, bound to its own algorithm."""
    return jwt.PyJWK(msgspec.to_builtins(key), algorithm=key.alg)


class SharedSecret:
    """The one secret of a local estate: whoever knows it trades every account."""

    def __init__(self, secret: str) -> None:
        """Take `secret`."""
        self._expected: Final = secret.encode()
        self._bearer: Final = Bearer("shared", frozenset({TokenScope.TRADE, TokenScope.READ}), None)

    def bearer(self, token: bytes) -> Bearer | None:
        """Return the bearer of the secret; None for any other token."""
        return self._bearer if hmac.compare_digest(token, self._expected) else None


class SignedTokens:
    """Checks signed tokens against the keys of a file."""

    def __init__(
        self,
        path: Path,
        *,
        issuer: str = ISSUER,
        audience: str = AUDIENCE,
        leeway_s: float = LEEWAY_S,
        log: Log | None = None,
        now: Callable[[], Instant] = lambda: Instant(time.time_ns()),
    ) -> None:
        """Take tokens of `issuer` for `audience` that a key of `path` signed.

        Raises:
            InputError: the key file cannot be used. Later on the keys before are kept then, and the log tells.
        """
        self._path: Final = path
        self._issuer: Final = issuer
        self._audience: Final = audience
        self._leeway: Final = round(leeway_s * SECOND)
        self._log: Final = log
        self._now: Final = now
        self._jws: Final = jwt.PyJWS(algorithms=list(ALGORITHMS))
        self._keys: dict[str, jwt.PyJWK] = {}
        self._remembered: Final[dict[bytes, Bearer]] = {}
        self._looked_at = time.monotonic()
        self._stamp = self._stat()
        self._load()

    @property
    def remembered(self) -> int:
        """How many checked tokens are known."""
        return len(self._remembered)

    def bearer(self, token: bytes) -> Bearer:
        """Return whose token it is.

        Raises:
            TokenError: it is not taken, and why.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError(TokenFault.TOO_LONG, f"longer than {MAX_TOKEN_BYTES} bytes")
        self._look()
        digest = hashlib.sha256(token).digest()
        known = self._remembered.get(digest)
        now = self._now()
        if known is not None:
            if now < known.expires_at + self._leeway:
                return known
            del self._remembered[digest]
        bearer = self._checked(token, now)
        if len(self._remembered) >= MAX_REMEMBERED:  # the one that is known longest makes room
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = bearer
        return bearer

    def stands(self, bearer: Bearer) -> bool:
        """Tell whether a bearer's token would still be taken: a session asks again and again."""
        self._look()
        return bearer.kid in self._keys and self._now() < bearer.expires_at + self._leeway

    # --- keys ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the key file anew when it changed; once a second it is asked."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
        except InputError as error:
            if self._log is not None:
                self._log.event("keys-unreadable", severity="error", why=str(error))
            return
        if self._log is not None:
            self._log.event("keys-read", kids=sorted(self._keys))

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> None:
        self._keys = {kid: jwk(key) for kid, key in read_keys(self._path).items()}
        self._remembered.clear()

    # --- one token -------------------------------------------------------------------------------------------------

    def _checked(self, token: bytes, now: Instant) -> Bearer:
        try:
            header = self._jws.get_unverified_header(token)
        except jwt.PyJWTError:
            raise TokenError(TokenFault.MALFORMED, "no signed token (JWS compact serialization)") from None
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenError(TokenFault.UNKNOWN_KEY, "signed with no key that is known here (`kid`)")
        if header.get("alg") != key.algorithm_name:
            raise TokenError(TokenFault.WRONG_ALGORITHM, "not of the algorithm of its key (`alg`)")
        try:
            payload = self._jws.decode(token, key, algorithms=[key.algorithm_name])
        except jwt.PyJWTError:
            raise TokenError(TokenFault.BAD_SIGNATURE, "the signature does not fit") from None
        return self._bearer_of(_claims(payload), str(kid), now)

    def _bearer_of(self, claims: Claims, kid: str, now: Instant) -> Bearer:
        audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if claims.iss != self._issuer:
            raise TokenError(TokenFault.WRONG_ISSUER, "of another issuer (`iss`)")
        if self._audience not in audiences:
            raise TokenError(TokenFault.WRONG_AUDIENCE, "for another audience (`aud`)")
        expires_at, leeway = _instant(claims.exp), self._leeway
        if now >= expires_at + leeway:
            raise TokenError(TokenFault.EXPIRED, "expired (`exp`)")
        if now < max(_instant(claims.nbf), _instant(claims.iat)) - leeway:
            raise TokenError(TokenFault.NOT_YET, "not valid yet (`nbf`, `iat`)")
        if claims.exp - claims.iat > MAX_LIFETIME_S:
            raise TokenError(TokenFault.TOO_LASTING, f"lasts longer than {MAX_LIFETIME_S} seconds")
        scopes = frozenset(one for one in TokenScope if one in claims.scope.split(" "))
        accounts = frozenset(AccountId(one) for one in claims.accounts)
        return Bearer(claims.sub, scopes, accounts, expires_at, kid)


def _claims(payload: Any) -> Claims:
    try:
        claims = msgspec.json.decode(payload, type=Claims)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenError(
            TokenFault.BAD_CLAIMS, "claims are missing or of the wrong kind; iss, aud, sub, exp, nbf, iat are needed"
        ) from None
    if not all(0 <= one < _FAR_S for one in (claims.exp, claims.nbf, claims.iat)):
        raise TokenError(TokenFault.BAD_CLAIMS, "a time is out of reach (`exp`, `nbf`, `iat`)")
    return claims


_FAR_S: Final = 2**33
"""In the year 2242: nanoseconds until then still fit where instants do."""


def _instant(seconds: float) -> Instant:
    return Instant(math.floor(seconds * SECOND))


def mint(key: Jwk, claims: Claims) -> str:
    """Return a signed token.

    Raises:
        InputError: the key does not sign.
    """
    if key.alg == EDDSA and not key.d:
        raise InputError("key", f"{key.kid!r} holds its public half only", right="sign with its private half")
    return jwt.PyJWS(algorithms=list(ALGORITHMS)).encode(
        msgspec.json.encode(claims), jwk(key), algorithm=key.alg, headers={"kid": key.kid}
    )


def public(key: Jwk) -> Jwk:
    """Return what those need who only check: an Ed25519 key without its private half."""
    return msgspec.structs.replace(key, d="")


def make_key(kid: str, algorithm: str = EDDSA) -> Jwk:
    """Return a new key, made of the system's randomness."""
    if algorithm == HS256:
        secret = binascii.b2a_base64(os.urandom(MIN_HS256_BYTES), newline=False).decode()
        return Jwk(kid, "oct", HS256, k=secret.replace("+", "-").replace("/", "_").rstrip("="), use="sig")
    made = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    return Jwk(kid, "OKP", EDDSA, crv=made["crv"], x=made["x"], d=made["d"], use="sig")
