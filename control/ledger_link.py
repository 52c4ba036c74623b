"""A drill's last look: whether the ledger of its estate is what follows from the journal, trade by trade."""

from __future__ import annotations

import time
from typing import Final

from control.config import load_config
from control.databases import password_of
from control.layout import Layout
from exchange.adapters.ledger_check import LedgerCheck, LedgerReader, compare, from_journal
from exchange.adapters.listing_file import read_listing

WITHIN_S: Final = 60.0
"""How long settlement may take for what it had before it when the load was stopped."""
_LOOK_S: Final = 0.5


def check_ledger(layout: Layout, *, within_s: float = WITHIN_S) -> LedgerCheck:
    """Hold the ledger of a running estate against its journal, once it holds as many trades or the time is over.

    Raises:
        PermanentError: the journal is damaged, or the ledger is no ledger.
        TemporaryError: brokers or database do not answer.
    """
    told, until = from_journal(layout.journal, read_listing(layout.root / "instruments.json"))
    ledger = load_config(layout.config("settlement-1")).ledger
    reader = LedgerReader(ledger.url if ledger is not None else layout.ledger, password=password_of(ledger))
    try:
        deadline = time.monotonic() + within_s
        while reader.trades() < len(told.rows) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return compare(told, reader.read(), until)
    finally:
        reader.close()
