"""A storm of repeats through a whole distributed estate: whatever is sent again has its effect once, in every book."""

import asyncio
import random
from collections import Counter

import pytest

from control.calls import fetch
from exchange.events import Accepted
from monitor.adapters.exporter import samples
from tests.control.distributed_bed import distributed, edge_client, judge

pytestmark = [pytest.mark.estate, pytest.mark.long]
SEED = 1
ORDERS = 600
TOGETHER = 12
"""Clients that send at once."""
AGAIN, CHANGED = 0.3, 0.1
"""Shares of the orders that are sent again, and under whose id another order is sent."""
CREATED, CONFLICT, REFUSED = 201, 409, 422
MISMATCH = "this client id was used for another request"


def orders(instruments, rng):
    """Return orders around each instrument's reference, of which many trade."""
    for number in range(ORDERS):
        listed = rng.choice(instruments)
        side = rng.choice(("buy", "sell"))
        yield {
            "account": f"storm-{rng.randrange(8)}", "client_id": f"storm-{number}", "symbol": listed["symbol"],
            "side": side, "quantity": rng.randint(1, 9), "price": listed["reference"] + rng.randint(-2, 2),
        }  # fmt: skip


class Storm:
    """Sends everything in an order of chance, and keeps every answer by the order's id."""

    def __init__(self, client, rng):
        self._client, self._rng = client, rng
        self.answers = {}
        self.mismatches = Counter()
        self._late = []

    async def run(self, made):
        """Send all from some clients at once; what is sent late comes among what is sent first, out of its order."""
        waiting = list(made)
        self._rng.shuffle(waiting)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(TOGETHER):
                tasks.create_task(self._send_from(waiting))
        for order in self._late:
            await self._note(order)

    async def _send_from(self, waiting):
        while waiting:
            order = waiting.pop()
            again = self._rng.random() < AGAIN
            at_once = self._rng.randint(1, 3) if again and self._rng.random() < 0.5 else 0
            await asyncio.gather(*(self._note(order) for _ in range(1 + at_once)))
            if again and not at_once:
                self._late.append(order)
            if self._late and self._rng.random() < AGAIN:
                await self._note(self._late.pop(self._rng.randrange(len(self._late))))
            if self._rng.random() < CHANGED:
                status, body = await self._client.place(order | {"quantity": order["quantity"] + 1})
                self.mismatches[status, MISMATCH in str(body)] += 1

    async def _note(self, order):
        status, body = await self._client.place(order)
        self.answers.setdefault((order["account"], order["client_id"]), []).append((status, body))


def through(plant):
    """Return how many order requests each gateway answered."""
    counts = {}
    for one in plant.addresses.workloads["gateway"]:
        told = samples(fetch("GET", f"{one.url}/metrics"))
        counts[one.id] = sum(value for name, _, value in told if name == "exchange_gateway_requests_total")
    return counts


async def test_what_is_sent_again_through_the_whole_estate_has_its_effect_once(tmp_path):
    rng = random.Random(SEED)
    async with distributed(tmp_path, load_rate_per_s=5) as plant, edge_client(plant) as client:
        _, listing = await client.get("/v1/instruments")
        storm = Storm(client, rng)
        await storm.run(orders(listing["instruments"], rng))
        statuses = Counter(status for each in storm.answers.values() for status, _ in each)
        print(dict(statuses), dict(storm.mismatches), through(plant))  # noqa: T201 - the figures
        assert statuses.keys() <= {CREATED, CONFLICT}, statuses
        assert statuses[CONFLICT], "none was sent while the first was under way"
        assert storm.mismatches.keys() == {(REFUSED, True)}, storm.mismatches
        assert all(through(plant).values()), through(plant)
        _, trades, events = await judge(plant, [])
        accepted = Counter((one.account, one.client_id) for one in events if isinstance(one, Accepted))
        for key, answers in storm.answers.items():
            assert accepted[key] == 1, key
            bodies = [body for status, body in answers if status == CREATED]
            assert bodies, "one of them was carried out"
            assert all(body == bodies[0] for body in bodies), bodies
            status, body = await client.get(f"/v1/orders/by-client-id/{key[0]}/{key[1]}")
            assert (status, body) == (200, bodies[0])
        assert trades > ORDERS / 10
        print(f"{len(storm.answers)} orders, {trades} trades")  # noqa: T201 - the figure
