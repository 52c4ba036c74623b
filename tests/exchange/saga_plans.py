# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""What is tried on the sagas: scenarios, and plans by seed."""

from tests.exchange.saga_world import Plan, trade

ENOUGH = (("cash", "p", "$cash", 50_000), ("securities", "q", "AAA", 50), ("fees", "p", "$cash", 1_000))
SERVICES = ("cash", "securities", "fees", "clearing")
SCENARIOS = {
    "settled": {"least": 0, "opening": ENOUGH},
    "no cash": {"least": 0, "opening": ENOUGH[1:]},
    "no securities": {"least": 0, "opening": ENOUGH[:1] + ENOUGH[2:]},
    "no money for fees": {"least": 0, "opening": ENOUGH[:2]},
    "suspended": {"suspended": ("q",)},
    "given up at once": {"impatient": True},
    **{f"{service} is away": {"away": (service,)} for service in SERVICES},
}
CALM_END = {"settled": "settled", "given up at once": ""}
"""How a scenario ends without crashes; the others are cancelled, and when given up at once the pivot decides."""


def money_comes_later(style, *crashes):
    """Make p too poor for the first trade and rich by the second."""
    opening = (("cash", "q", "$cash", 50_000), ("securities", "p", "AAA", 50), ("securities", "q", "AAA", 50))
    trades = (trade(1, 3, "p", "q"), trade(2, 9, "q", "p"))
    fees = (("fees", "p", "$cash", 100), ("fees", "q", "$cash", 100))
    return Plan(style, trades, 0, opening + fees, crashes=crashes)


def random_plan(style, rng):
    accounts = "pqr"
    trades = tuple(
        trade(number, rng.randint(1, 9), rng.choice(accounts), rng.choice(accounts), rng.randint(1, 200))
        for number in range(1, rng.randint(2, 5))
    )
    limited = rng.random() < 0.5
    opening = tuple(
        (service, account, asset, rng.randint(10, most))
        for account in accounts
        for service, asset, most in (("cash", "$cash", 30_000), ("securities", "AAA", 25), ("fees", "$cash", 40))
    )
    return Plan(
        style,
        trades,
        least=0 if limited else None,
        opening=opening if limited else (),
        suspended=("r",) if rng.random() < 0.2 else (),
        away=(rng.choice(SERVICES),) if rng.random() < 0.2 else (),
        trouble=rng.choice((0.0, 0.03, 0.1)),
        impatient=rng.random() < 0.5,
    )
