"""The verbs `exchange token`: a token for a trial, and the keys that sign and check tokens."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from control import token_desk
from control.terminal import EXIT_CODES, AsJson, State, guarded, layout_of, out, print_json, settings_of, starting
from exchange.bearer import TokenScope
from kernel.errors import InputError
from kernel.time import SECOND, parse_duration

app = typer.Typer(
    no_args_is_help=True,
    help="Signed tokens for order entry: mint one for a trial; make, rotate and drop keys.",
    epilog=EXIT_CODES,
)


def complete_scope(incomplete: str) -> list[str]:
    """Offer the scopes."""
    return starting(TokenScope, incomplete)


@app.command("mint", epilog="Example: tapewatch exchange token mint --account ann --for 1h")
def mint(
    account: Annotated[list[str] | None, typer.Option(help="An account it may trade; more of them.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="trade, read or admin; more of them.", autocompletion=complete_scope)
    ] = None,
    subject: Annotated[str, typer.Option(help="Whose it is: rate limits and logs go by it.")] = "trial",
    for_: Annotated[str, typer.Option("--for", help="How long it is good, a day at most.")] = "1h",
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print a signed token. Whoever reads it may use it: it is a secret until it expires."""
    settings, layout = settings_of(state), layout_of(state)
    wish = token_desk.TokenWish(
        subject, account or (), scope or ("trade",), guarded(lambda: _seconds(for_)), settings.token_issuer,
        settings.token_audience,
    )  # fmt: skip
    token = guarded(lambda: token_desk.mint_token(layout, wish))
    if as_json:
        print_json({"token": token})
    else:
        # Nothing but the token, and no markup: it is for `$(...)`.
        out.print(token, soft_wrap=True, markup=False, highlight=False)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text) / SECOND
    except ValueError as error:
        raise InputError("for", str(error), right="such as 10m, 1h or 24h") from error


@app.command("keys", epilog="Example: tapewatch exchange token keys")
def keys(state: State = None, *, as_json: AsJson = False) -> None:
    """List the keys that check tokens, the oldest first, and which one signs."""
    found = guarded(lambda: token_desk.list_keys(layout_of(state)))
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        out.print(token_desk.describe(found), markup=False, highlight=False)


@app.command("rotate", epilog="Example: tapewatch exchange token rotate")
def rotate(
    algorithm: Annotated[str, typer.Option(help="EdDSA (Ed25519) or HS256.")] = "EdDSA",
    state: State = None,
) -> None:
    """Make a new key that signs from now on; tokens of the keys before stay good. The first one makes the key file."""
    made = guarded(lambda: token_desk.add_key(layout_of(state), algorithm))
    out.print(f"{made.kid} ({made.algorithm}) signs from now on; gateways take it in within a second", highlight=False)


@app.command("drop", epilog="Example: tapewatch exchange token drop 20261129-1a2b3c4d")
def drop(
    kid: Annotated[str, typer.Argument(help="Which key; `keys` lists them.", show_default=False)],
    state: State = None,
) -> None:
    """Take a key out: gateways refuse its tokens within a second, and end the sessions they opened."""
    guarded(lambda: token_desk.drop_key(layout_of(state), kid))
    out.print(f"{kid} is out: its tokens are refused", markup=False, highlight=False)
