"""Requests of operators about accounts: funds and the kill switch (rules M3, R7)."""

from __future__ import annotations

from typing import Any, Final

from exchange.checks import is_id
from exchange.commands import DisableAccount, EnableAccount, Fund
from exchange.events import AccountDisabled, AccountEnabled, Event, Funded, MassCanceled, Rejected
from exchange.floor import Floor
from exchange.ledger import CASH
from exchange.orders import cancel_all
from exchange.types import AccountId, CancelReason, RejectReason

ADMIN: Final = AccountId("")
"""The account under which the keys of admin commands are remembered; no participant can have it."""
MAX_FUND: Final = 10**18
"""The largest amount `Fund` moves: sums of many of them still fit into a ledger's 64 bits."""


def fund(floor: Floor, events: list[Event], command: Fund) -> None:
    """Give an account an asset, or take what is free of it (M3)."""
    asked: Any = command
    account: Any = asked.account
    asset: Any = asked.asset
    amount: Any = asked.amount
    book = floor.find(asset)
    reason: RejectReason | None = None
    if not is_id(account):
        reason = RejectReason.BAD_CLIENT_ID
    elif book is None and (type(asset) is not str or asset != CASH):
        reason = RejectReason.BAD_ASSET
    elif type(amount) is not int or not amount or abs(amount) > MAX_FUND:
        reason = RejectReason.BAD_QUANTITY
    elif amount < 0:
        has = (floor.cash if book is None else book.positions).get(account)
        if amount + (0 if has is None else has.has - has.held) < 0:
            reason = RejectReason.INSUFFICIENT_FUNDS if book is None else RejectReason.INSUFFICIENT_POSITION
    if reason is not None:
        events.append(Rejected(ADMIN, command.key, reason))
        return
    (floor.cash_of(account) if book is None else floor.stock_of(book, account)).has += amount
    events.append(Funded(account, asset, amount))


def switch(floor: Floor, events: list[Event], command: DisableAccount | EnableAccount) -> None:
    """Switch an account off, with all its orders, or on again (R7)."""
    asked: Any = command
    account: Any = asked.account
    if not is_id(account):
        events.append(Rejected(ADMIN, command.key, RejectReason.BAD_CLIENT_ID))
    elif isinstance(command, EnableAccount):
        floor.disabled.discard(account)
        events.append(AccountEnabled(account))
    else:
        floor.disabled.add(account)
        count = cancel_all(floor, events, account, command.key, CancelReason.KILL_SWITCH)
        events.append(MassCanceled(account, command.key, count))
        events.append(AccountDisabled(account))
