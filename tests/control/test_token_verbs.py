"""Keys and tokens by a person's hand: what is minted is taken, what is dropped is not, and no secret is shown."""

from __future__ import annotations

import json
import stat

import msgspec
import pytest

from control.layout import Layout
from control.plan import gateway_tuning
from control.settings import load_settings
from exchange.adapters.tokens import SignedTokens, TokenError, read_keys
from exchange.bearer import TokenFault, TokenScope
from tests.control.test_cli import run


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "up")


def token(layout, *words):
    code, told, _ = run("exchange", "token", *words, "--state", layout.root)
    return code, told.strip()


def test_a_minted_token_is_taken_for_what_it_says(layout):
    code, minted = token(layout, "mint", "--account", "ann", "--account", "bob", "--scope", "trade", "--scope", "read",
                         "--subject", "desk-1", "--for", "10m")  # fmt: skip
    assert code == 0
    bearer = SignedTokens(layout.token_keys).bearer(minted.encode())
    assert (bearer.key, bearer.accounts) == ("desk-1", {"ann", "bob"})
    assert bearer.scopes == {TokenScope.TRADE, TokenScope.READ}


def test_key_files_are_their_owners_alone_and_what_checks_cannot_sign(layout):
    token(layout, "rotate")
    for path in (layout.token_keys, layout.token_signing):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(not key.d for key in read_keys(layout.token_keys).values())
    assert all(key.d for key in read_keys(layout.token_signing).values())


@pytest.mark.parametrize("algorithm", ["EdDSA", "HS256"])
def test_after_a_rotation_old_and_new_tokens_are_taken_until_the_old_key_is_dropped(layout, algorithm):
    _, old = token(layout, "mint", "--account", "ann")
    code, told = token(layout, "rotate", "--algorithm", algorithm)
    assert code == 0
    _, new = token(layout, "mint", "--account", "ann")
    both = SignedTokens(layout.token_keys)
    assert both.bearer(old.encode()).kid != both.bearer(new.encode()).kid
    _, listed = token(layout, "keys", "--json")
    keys = json.loads(listed)
    assert [one["signs"] for one in keys] == [False, True]
    assert keys[1]["kid"] in told
    assert token(layout, "drop", keys[0]["kid"])[0] == 0
    alone = SignedTokens(layout.token_keys)
    assert alone.bearer(new.encode()).key == "trial"
    with pytest.raises(TokenError) as caught:
        alone.bearer(old.encode())
    assert caught.value.fault is TokenFault.UNKNOWN_KEY
    shown = told + listed + token(layout, "keys")[1]
    for key in (*read_keys(layout.token_signing).values(), *read_keys(layout.token_keys).values()):
        assert not key.d or key.d not in shown
        assert not key.k or key.k not in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["mint", "--scope", "all"], "trade, read, admin"),
        (["mint", "--for", "25h"], "24h"),
        (["mint", "--for", "0s"], "24h"),
        (["mint", "--for", "soon"], "10m"),
        (["mint", "--account", "a b"], "printable"),
        (["mint", "--subject", ""], "printable"),
        (["rotate", "--algorithm", "none"], "EdDSA, HS256"),
        (["mint"], "none is named, so the token would open nothing; such as --account ann"),
        (["keys"], "cannot read the keys (No such file or directory); make one with `tapewatch exchange token rotate`"),
    ],
)
def test_what_no_gateway_would_take_is_refused_with_what_would_be_right(layout, words, why):
    code, _, said = run("exchange", "token", *words, "--state", layout.root)
    assert code != 0
    assert why in " ".join(said.split())


def test_the_last_key_stays(layout):
    token(layout, "rotate")
    (kid,) = read_keys(layout.token_keys)
    code, _, said = run("exchange", "token", "drop", kid, "--state", layout.root)
    assert code != 0
    assert "rotate" in said
    assert run("exchange", "token", "drop", "nobody", "--state", layout.root)[0] != 0
    assert list(read_keys(layout.token_keys)) == [kid]


def test_the_settings_of_the_door_reach_the_gateway(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_GATEWAY_TOKENS", "both")
    monkeypatch.setenv("TAPEWATCH_TOKEN_ISSUER", "idp")
    monkeypatch.setenv("TAPEWATCH_GATEWAY_KEY_RATE_PER_S", "7.5")
    told = msgspec.to_builtins(gateway_tuning(load_settings()))
    assert told == {
        "tokens": "both", "issuer": "idp", "audience": "order-entry", "key_rate_per_s": 7.5,
        "account_rate_per_s": 0.0, "cancel_factor": 2.0, "engine_timeout_s": 5.0,
    }  # fmt: skip
