"""Both parties of a trade whose settlement is taken back are told, whenever who leads it dies."""

from __future__ import annotations

import pytest

from exchange.messaging import Delivery
from exchange.notices import QUEUE, Notice, NoticeKind, read_notice
from exchange.saga import Rules
from exchange.saga_messages import Style
from exchange.types import AccountId
from tests.exchange.saga_plant import Plant, Points, files, some_trades, trade

STYLES = list(Style)
NOT_R = Rules(suspended=frozenset({AccountId("r")}))


def told(plant: Plant) -> list[Notice]:
    letters: list[Delivery] = [each.delivery for each in plant.broker._shelves.waiting[QUEUE]]
    return [read_notice(each) for each in letters]


@pytest.mark.parametrize("style", STYLES)
async def test_both_parties_are_told_of_each_settlement_taken_back_and_nobody_of_the_others(style, tmp_path, laid):
    plant = Plant(files(tmp_path, laid), style, some_trades(20), rules=NOT_R)
    states = await plant.run()
    bad = [one for one in plant.trades if "r" in (one.buyer, one.seller)]
    assert len(bad) == states["cancelled"] > 3
    notices = {one.id: one for one in told(plant)}
    assert set(notices) == {f"saga.{one.trade_id}.{side}" for one in bad for side in ("buy", "sell")}
    assert {one.kind for one in notices.values()} == {NoticeKind.SETTLEMENT_CANCELLED}
    for one in bad:
        assert (notices[f"saga.{one.trade_id}.buy"].account, notices[f"saga.{one.trade_id}.sell"].account) == (
            one.buyer, one.seller,
        )  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
async def test_whoever_leads_dies_around_the_end_and_both_are_told_all_the_same(style, tmp_path, laid):
    one = trade(1, buyer="r")
    first = Plant(files(tmp_path, laid), style, [one], rules=NOT_R)
    assert await first.run() == {"cancelled": 1}
    about = next(n for n, name in enumerate(first.points.met) if "says notice." in name)
    deadly = [n for n, name in enumerate(first.points.met) if n >= about and name.startswith("coordinator")]
    assert len(deadly) >= 4, first.points.met
    for point in deadly:
        place = files(tmp_path / str(point), laid)
        plant = Plant(place, style, [one], rules=NOT_R, points=Points(frozenset({point})))
        assert await plant.run() == {"cancelled": 1}
        assert {each.id for each in told(plant)} == {"saga.1.buy", "saga.1.sell"}, first.points.met[point]
