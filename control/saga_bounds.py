"""What the services of settlement refuse, as a person writes it: bounds of accounts, in units of money and lots."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from control.config import SagaTuning
from exchange.saga import ESCROW, Rules, Service
from exchange.types import AccountId

ALL: Final = "*"
"""Stands for every account that has no bound of its own."""
_MILLION: Final = 1_000_000
_MOST: Final = Decimal(10**12)


def _money(value: Decimal) -> Decimal:
    if value * _MILLION != int(value * _MILLION) or abs(value) > _MOST:
        raise ValueError(f"a sum of money of at most {_MOST} units and six decimals")
    return value


Money = Annotated[Decimal, pydantic.AfterValidator(_money)]
"""Units of the currency; millionths are what is counted in."""


class Bound(BaseModel):
    """The least an account may have in the book of each service; below zero it is credit. None: anything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cash: Money | None = None
    """In the book of `cash`, after a reservation."""
    lots: Annotated[int, Field(ge=-(10**15), le=10**15)] | None = None
    """Of each symbol, in the book of `securities`, after a reservation."""
    fees: Money | None = None
    """In the book of `fees`, where the account begins at zero, after a fee."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(  # noqa: TRY004 - what pydantic tells of
                f"of the form {{{', '.join(f'{one}: ...' for one in cls.model_fields)}}}"
            )
        unknown = sorted(map(str, value.keys() - cls.model_fields.keys()))
        if unknown:
            raise ValueError(f"made of {', '.join(cls.model_fields)}; {unknown[0]} is none of them")
        return value

    def of(self, service: Service) -> int | None:
        """Return it as the service counts: millionths of the currency, or lots."""
        if service is Service.SECURITIES:
            return self.lots
        money = {Service.CASH: self.cash, Service.FEES: self.fees}.get(service)
        return None if money is None else int(money * _MILLION)


_NAMED: Final = {Service.CASH: "cash", Service.SECURITIES: "lots", Service.FEES: "fees"}


def _account(name: str) -> str:
    if name.startswith(ESCROW[0]):
        raise ValueError(f"the name of an account; what begins with {ESCROW[0]} is the exchange's own, not {name!r}")
    if not name or not name.isascii() or not name.isprintable() or " " in name:
        raise ValueError(f"the name of an account, printable ASCII without spaces, or {ALL} for all, not {name!r}")
    return name


Account = Annotated[str, pydantic.AfterValidator(_account)]
"""An account, or `*` for all."""


def _one(name: str) -> str:
    if name == ALL:  # it would be an account of that name, and nobody would be suspended
        raise ValueError(f"the name of one account, not {ALL}")
    return name


OneAccount = Annotated[Account, pydantic.AfterValidator(_one)]


def tuned(tuning: SagaTuning, bounds: Mapping[str, Bound], suspended: tuple[str, ...]) -> SagaTuning:
    """Return a part's tuning with what of the bounds concerns it.

    An account's own bound counts where it names one, also as none at all; else that of `*` does.
    """
    if tuning.part == "coordinator":
        return tuning
    service = Service(tuning.part)
    least = bounds.get(ALL, Bound()).of(service)
    name = _NAMED.get(service)
    own = {
        account: bound.of(service)
        for account, bound in sorted(bounds.items())
        if account != ALL and name in bound.model_fields_set
    }
    return SagaTuning(
        part=tuning.part, style=tuning.style, least=least, least_of=own,
        suspended=sorted(suspended) if service is Service.CLEARING else [],
    )  # fmt: skip


def rules_of(tuning: SagaTuning) -> Rules:
    """Return what a part refuses."""
    own = {AccountId(account): least for account, least in tuning.least_of.items()}
    return Rules(tuning.least, frozenset(AccountId(one) for one in tuning.suspended), own)
