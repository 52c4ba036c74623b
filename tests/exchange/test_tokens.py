"""Signed tokens: what is taken, what is not and why, keys that change under way, and that nothing of them is told."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.adapters.tokens import (
    AUDIENCE,
    EDDSA,
    HS256,
    ISSUER,
    MAX_REMEMBERED,
    MAX_TOKEN_BYTES,
    Claims,
    KeyFile,
    SharedSecret,
    SignedTokens,
    TokenError,
    jwk,
    make_key,
    mint,
    public,
    read_keys,
)
from exchange.bearer import TokenFault, TokenScope
from exchange.recording import RecordingLog
from kernel.errors import InputError
from kernel.time import SECOND, Instant

NOW_S = 1_800_000_000
CLAIMS = Claims(ISSUER, AUDIENCE, "desk-1", NOW_S + 600, NOW_S, NOW_S, "trade read", ("ann",))
ED, HS = make_key("ed-1"), make_key("hs-1", HS256)


def write_keys(path, *keys):
    path.write_bytes(msgspec.json.encode(KeyFile(tuple(public(key) for key in keys))))
    return path


class Bench:
    def __init__(self, tmp_path):
        self.path = write_keys(tmp_path / "keys.json", ED, HS)
        self.now_s = NOW_S + 1.0
        self.log = RecordingLog()
        self.tokens = SignedTokens(self.path, log=self.log, now=lambda: Instant(round(self.now_s * SECOND)))

    def fault(self, token):
        with pytest.raises(TokenError) as caught:
            self.tokens.bearer(token.encode() if isinstance(token, str) else token)
        assert str(caught.value).startswith("token: ")
        return caught.value.fault

    def look_again(self):
        self.tokens._looked_at -= 2.0


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def changed(**changes):
    return msgspec.structs.replace(CLAIMS, **changes)


def raw(header, payload, signature=b""):
    parts = [json.dumps(header).encode(), payload if isinstance(payload, bytes) else json.dumps(payload).encode()]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, signature])


@pytest.mark.parametrize("key", [ED, HS], ids=["EdDSA", "HS256"])
def test_a_token_of_either_algorithm_says_who_comes(bench, key):
    bearer = bench.tokens.bearer(mint(key, CLAIMS).encode())
    assert (bearer.key, bearer.kid) == ("desk-1", key.kid)
    assert bearer.scopes == {TokenScope.TRADE, TokenScope.READ}
    assert bearer.owns("ann")
    assert not bearer.owns("bob")


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        (changed(exp=NOW_S - 10, iat=NOW_S - 100, nbf=NOW_S - 100), TokenFault.EXPIRED),
        (changed(nbf=NOW_S + 60), TokenFault.NOT_YET),
        (changed(iat=NOW_S + 60, exp=NOW_S + 600), TokenFault.NOT_YET),
        (changed(aud="another"), TokenFault.WRONG_AUDIENCE),
        (changed(aud=()), TokenFault.WRONG_AUDIENCE),
        (changed(iss="another"), TokenFault.WRONG_ISSUER),
        (changed(exp=NOW_S + 2 * 86_400), TokenFault.TOO_LASTING),
        (changed(exp=1e300), TokenFault.BAD_CLAIMS),
        (changed(nbf=-1), TokenFault.BAD_CLAIMS),
        (changed(sub=""), TokenFault.BAD_CLAIMS),
        (changed(accounts=("a\nb",)), TokenFault.BAD_CLAIMS),
        (changed(accounts=tuple(f"a{n}" for n in range(101))), TokenFault.BAD_CLAIMS),
    ],
)
def test_each_claim_is_held_against_what_it_must_be(bench, claims, fault):
    assert bench.fault(mint(ED, claims)) is fault


@pytest.mark.parametrize("missing", ["iss", "aud", "sub", "exp", "nbf", "iat"])
def test_no_claim_that_is_needed_may_be_missing(bench, missing):
    claims = {name: value for name, value in msgspec.to_builtins(CLAIMS).items() if name != missing}
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), jwk(ED), algorithm=EDDSA, headers={"kid": "ed-1"})
    assert bench.fault(token) is TokenFault.BAD_CLAIMS


@pytest.mark.parametrize("value", ["soon", None, True, "NaN", [1], {}])
def test_a_time_that_is_none_is_refused(bench, value):
    claims = msgspec.to_builtins(CLAIMS) | {"exp": value}
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), jwk(ED), algorithm=EDDSA, headers={"kid": "ed-1"})
    assert bench.fault(token) is TokenFault.BAD_CLAIMS


def test_clocks_may_differ_by_the_leeway_and_no_more(bench):
    token = mint(ED, CLAIMS)
    for now_s, taken in [(CLAIMS.nbf - 4.9, True), (CLAIMS.exp + 4.9, True), (CLAIMS.exp + 5, False),
                         (CLAIMS.nbf - 5.1, False)]:  # fmt: skip
        bench.tokens._remembered.clear()
        bench.now_s = now_s
        if taken:
            assert bench.tokens.bearer(token.encode()).key == "desk-1"
        else:
            assert bench.fault(token) in {TokenFault.EXPIRED, TokenFault.NOT_YET}


def test_the_algorithm_is_the_keys_and_never_the_tokens(bench):
    payload = msgspec.to_builtins(CLAIMS)
    none = raw({"alg": "none", "typ": "JWT", "kid": "ed-1"}, payload)
    assert bench.fault(none) is TokenFault.WRONG_ALGORITHM
    # The classic: a token signed with the public key as if it were a shared secret.
    public_bytes = base64.urlsafe_b64decode(ED.x + "==")
    confused = jwt.PyJWS().encode(msgspec.json.encode(CLAIMS), public_bytes, algorithm=HS256, headers={"kid": "ed-1"})
    assert bench.fault(confused) is TokenFault.WRONG_ALGORITHM
    for alg in ("None", "nOnE", "", None, 5, ["EdDSA"], "HS256", "RS256"):
        assert bench.fault(raw({"alg": alg, "kid": "ed-1"}, payload, b"x" * 64)) is TokenFault.WRONG_ALGORITHM


def test_what_the_token_brings_along_decides_nothing(bench):
    """`jwk`, `jku` and `x5u` in the header are a stranger's word for whom to trust."""
    stranger = make_key("ed-1")
    told = {"kid": "ed-1", "jwk": msgspec.to_builtins(public(stranger)), "jku": "http://127.0.0.1:1/keys"}
    token = jwt.PyJWS().encode(msgspec.json.encode(CLAIMS), jwk(stranger), algorithm=EDDSA, headers=told)
    assert bench.fault(token) is TokenFault.BAD_SIGNATURE
    critical = jwt.PyJWS().encode(
        msgspec.json.encode(CLAIMS), jwk(ED), algorithm=EDDSA, headers={"kid": "ed-1", "crit": ["exp"], "exp": 1}
    )
    assert bench.fault(critical) in {TokenFault.MALFORMED, TokenFault.BAD_SIGNATURE}


@pytest.mark.parametrize("kid", ["nobody", "", "../../etc/passwd", "' OR 1=1 --", "x" * 2000, 7, None, ["ed-1"]])
def test_a_key_that_is_not_there_signs_nothing(bench, kid):
    header = {"alg": EDDSA, "kid": kid}
    assert bench.fault(raw(header, msgspec.to_builtins(CLAIMS), b"x" * 64)) in {
        TokenFault.UNKNOWN_KEY, TokenFault.MALFORMED
    }  # fmt: skip


def test_a_token_that_was_changed_is_refused(bench):
    head, body, signature = mint(ED, CLAIMS).split(".")
    other = mint(ED, changed(accounts=("bob",))).split(".")[1]
    assert bench.fault(f"{head}.{other}.{signature}") is TokenFault.BAD_SIGNATURE
    assert bench.fault(f"{head}.{body}.") is TokenFault.BAD_SIGNATURE
    assert bench.fault(f"{head}.{body}.{mint(HS, CLAIMS).split('.')[2]}") is TokenFault.BAD_SIGNATURE


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "\xff.\xff.\xff", "[" * 4000, "ey" * 2000, "e30.e30.e30"]
)
def test_what_is_no_token_is_refused_and_named(bench, token):
    assert bench.fault(token.encode("latin-1")) in {TokenFault.MALFORMED, TokenFault.UNKNOWN_KEY}


def test_depth_bombs_in_header_and_claims_are_refused(bench):
    deep = b"[" * 1500
    assert bench.fault(raw({"kid": "ed-1"}, b"{}").replace("eyJ", "W1tb", 1)) is TokenFault.MALFORMED
    bomb = base64.urlsafe_b64encode(deep).rstrip(b"=")
    assert bench.fault(bomb + b".e30.e30") is TokenFault.MALFORMED
    payload = b'{"iss":' + b"[" * 2000
    signed = jwt.PyJWS().encode(payload, jwk(ED), algorithm=EDDSA, headers={"kid": "ed-1"})
    assert bench.fault(signed) is TokenFault.BAD_CLAIMS


def test_a_huge_token_is_refused_before_anything_of_it_is_read(bench):
    assert bench.fault(b"x" * (MAX_TOKEN_BYTES + 1)) is TokenFault.TOO_LONG
    huge = b"x" * 5_000_000
    started = time.process_time()
    for _ in range(20):
        bench.fault(huge)
    refused = time.process_time()
    for _ in range(20):
        hashlib.sha256(huge)
    assert refused - started < (time.process_time() - refused) / 2, "not even a digest of it is made"


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory, data):
    tokens = SignedTokens(write_keys(tmp_path_factory.mktemp("keys") / "keys.json", HS))
    with pytest.raises(TokenError):
        tokens.bearer(data)


# --- keys that change ------------------------------------------------------------------------------------------------


def test_a_new_key_is_taken_in_and_an_old_one_taken_out_while_the_gateway_runs(bench):
    old, new = mint(ED, CLAIMS), make_key("ed-2")
    bearer = bench.tokens.bearer(old.encode())
    assert bench.fault(mint(new, CLAIMS)) is TokenFault.UNKNOWN_KEY
    write_keys(bench.path, new, ED)
    bench.look_again()
    assert bench.tokens.bearer(mint(new, CLAIMS).encode()).kid == "ed-2"
    assert bench.tokens.stands(bearer)
    write_keys(bench.path, new)
    bench.look_again()
    assert not bench.tokens.stands(bearer)
    assert bench.fault(old) is TokenFault.UNKNOWN_KEY
    assert bench.log.names() == ["keys-read", "keys-read"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"keys": []}', b'{"keys": [{"kid": "x"}]}', b"\xff" * 20])
def test_a_broken_key_file_leaves_the_keys_before_in_force_and_is_told(bench, content):
    bench.path.write_bytes(content)
    bench.look_again()
    assert bench.tokens.bearer(mint(ED, CLAIMS).encode()).key == "desk-1"
    assert bench.log.names() == ["keys-unreadable"]
    assert HS.k not in str(bench.log.events)
    with pytest.raises(InputError):
        SignedTokens(bench.path)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (msgspec.structs.replace(HS, k="c2hvcnQ"), "shorter than 32 bytes"),
        (msgspec.structs.replace(HS, alg="none"), "algorithm"),
        (msgspec.structs.replace(ED, alg=HS256), "not of the kind"),
        (msgspec.structs.replace(HS, alg=EDDSA), "not of the kind"),
        (msgspec.structs.replace(ED, x="AAAA"), "cannot be used"),
        (msgspec.structs.replace(ED, use="enc"), "another use"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_not_shown(tmp_path, key, words):
    path = tmp_path / "keys.json"
    path.write_bytes(msgspec.json.encode(KeyFile((key,))))
    with pytest.raises(InputError) as caught:
        read_keys(path)
    assert words in str(caught.value)
    for secret in (key.k, key.d):
        assert not secret or secret not in str(caught.value)


def test_two_keys_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="twice"):
        read_keys(write_keys(tmp_path / "keys.json", ED, ED))


def test_a_public_half_checks_and_does_not_sign():
    assert public(ED).d == ""
    with pytest.raises(InputError, match="public half"):
        mint(public(ED), CLAIMS)


# --- what is remembered ----------------------------------------------------------------------------------------------


def test_a_checked_token_is_remembered_by_its_digest_until_it_expires(bench):
    token = mint(ED, CLAIMS).encode()
    first = bench.tokens.bearer(token)
    assert bench.tokens.bearer(token) is first
    assert bench.tokens.remembered == 1
    assert all(len(digest) == 32 for digest in bench.tokens._remembered)
    bench.now_s = CLAIMS.exp + 6
    assert bench.fault(token) is TokenFault.EXPIRED
    assert bench.tokens.remembered == 0


def test_what_is_remembered_is_bounded_and_refusals_are_not_remembered(bench, monkeypatch):
    monkeypatch.setattr("exchange.adapters.tokens.MAX_REMEMBERED", 10)
    for number in range(25):
        bench.tokens.bearer(mint(HS, changed(jti=str(number))).encode())
        bench.fault(f"a.b.{number}")
    assert bench.tokens.remembered == 10 < MAX_REMEMBERED


def test_the_shared_secret_opens_every_account():
    shared = SharedSecret("trade-secret")
    assert shared.bearer(b"trade-secre") is None
    bearer = shared.bearer(b"trade-secret")
    assert bearer is not None
    assert bearer.owns("anyone")


def test_a_key_is_never_shown():
    assert os.environ.get("NEVER") is None
    for key in (ED, HS):
        assert (key.d or key.k) not in repr(key) + str(key) + repr(KeyFile((key,)))
