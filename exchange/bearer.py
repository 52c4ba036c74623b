"""Who asks, and what they may: the part of a token that decides.

An order or a change of one needs the scope `trade` and one of the bearer's accounts. Cancels and look-ups may also come
from `admin`, for every account: whoever watches over risk takes orders off, and places none.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final

import msgspec

from exchange.commands import CancelOrder, MassCancel, ParticipantCommand
from exchange.types import AccountId
from kernel.time import Instant


class TokenScope(StrEnum):
    """What a token may be good for."""

    TRADE = "trade"
    """Place, change, cancel and look up orders of the bearer's accounts."""
    READ = "read"
    """Look up orders of the bearer's accounts."""
    ADMIN = "admin"
    """Cancel and look up orders of every account."""


class TokenFault(StrEnum):
    """Why a token is not taken: a value for the answer, the log and the metric."""

    MISSING = "missing"
    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_ALGORITHM = "wrong_algorithm"
    BAD_SIGNATURE = "bad_signature"
    BAD_CLAIMS = "bad_claims"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    TOO_LASTING = "too_lasting"


NEVER: Final = Instant(0)
"""When a bearer without an end expires."""


class Bearer(msgspec.Struct, frozen=True):
    """Somebody whose token was checked."""

    key: str
    """The token's subject: what rate limits, logs and named sessions go by."""
    scopes: frozenset[TokenScope]
    accounts: frozenset[AccountId] | None
    """None: every account."""
    expires_at: Instant = NEVER
    kid: str = ""
    """Which key signed the token; empty for the shared secret."""

    def owns(self, account: AccountId) -> bool:
        """Tell whether an account is the bearer's."""
        return self.accounts is None or account in self.accounts

    def objection(self, command: ParticipantCommand) -> str | None:
        """Return why the bearer may not send a command; None if it may."""
        return self._objection(command.account, TokenScope.TRADE, lenient=type(command) in _LESS_RISK)

    def may_all(self, accounts: Collection[AccountId]) -> bool:
        """Tell whether there is no objection to any command of these accounts, whatever it asks for."""
        return TokenScope.TRADE in self.scopes and (self.accounts is None or self.accounts.issuperset(accounts))

    def objection_to_look_up(self, account: AccountId) -> str | None:
        """Return why the bearer may not look an account's orders up; None if it may."""
        scope = TokenScope.READ if TokenScope.TRADE not in self.scopes else TokenScope.TRADE
        return self._objection(account, scope, lenient=True)

    def _objection(self, account: AccountId, scope: TokenScope, *, lenient: bool) -> str | None:
        if lenient and TokenScope.ADMIN in self.scopes:
            return None
        if scope not in self.scopes:
            return f"token: the scope `{scope}` is needed"
        # The account is not repeated: it may be anything, and whoever sent it knows it.
        return None if self.owns(account) else "account: the token is not for it"


_LESS_RISK: Final = frozenset({CancelOrder, MassCancel})
