# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The shown book by order, folded from events alone: what anyone who follows the events must be able to know."""

from __future__ import annotations

from exchange import events as e


class ToldBook:
    def __init__(self):
        self.shown = {}
        """By order id: symbol, side, price, lots; in queue order at a price."""

    def take(self, event):
        match event:
            case e.Rested() | e.Replenished():
                old = self.shown.pop(event.order_id, None)
                in_place = isinstance(event, e.Replenished) and old is not None
                self.put(event.order_id, (event.symbol, event.side, event.price, event.quantity))
                assert not in_place, f"{event.order_id} shows a new part while the old one stands"
            case e.Traded():
                self.less(event.maker_order_id, event.quantity)
                self.less(event.taker_order_id, event.quantity)
                if event.maker_order_id in self.shown:
                    assert self.shown[event.maker_order_id][3] == event.maker_left
            case e.Canceled(resting=True):
                if event.left:
                    self.less(event.order_id, event.quantity)
                else:
                    self.shown.pop(event.order_id, None)
            case e.Expired():
                self.shown.pop(event.order_id, None)
            case e.Replaced():
                if not event.kept_priority:
                    self.shown.pop(event.order_id, None)
                elif event.order_id in self.shown:
                    symbol, side, price, lots = self.shown[event.order_id]
                    self.shown[event.order_id] = symbol, side, price, min(lots, event.quantity)

    def put(self, order_id, what):
        self.shown[order_id] = what

    def less(self, order_id, lots):
        if order_id in self.shown:
            symbol, side, price, shown = self.shown[order_id]
            if shown > lots:
                self.shown[order_id] = symbol, side, price, shown - lots
            else:
                del self.shown[order_id]

    def levels(self, symbol, side):
        """Price and lots by level, best first."""
        totals = {}
        for where, which, price, lots in self.shown.values():
            if (where, which) == (symbol, side):
                totals[price] = totals.get(price, 0) + lots
        return tuple(sorted(totals.items(), reverse=side == "buy"))
