"""Five hours in which every rule of the house has something to say."""

from __future__ import annotations

from kernel.time import HOUR, MINUTE, SECOND, to_rfc3339


def troubles(start):
    found = []

    def say(at, action, service="gateway", level="warning", **fields):
        found.append({
            "@timestamp": to_rfc3339(start + at), "event.action": action, "service.name": service,
            "service.node.name": f"{service}-1", "log.level": level, **fields,
        })  # fmt: skip

    def slow(at, count, duration=300_000_000, action="order-slow", accounts=1):
        for number in range(count):
            member = {"user.id": f"m{number % accounts}", "event.duration": duration}
            say(at + number * 10_000_000, action, **member)

    say(10 * SECOND, "engine-ready", "engine", "info", **{"exchange.clean": True, "exchange.seconds": 0.5})
    slow(2 * MINUTE, 8)
    slow(8 * MINUTE, 60, duration=3_000_000_000)
    slow(9 * MINUTE, 40, action="order-unanswered")
    slow(10 * MINUTE, 60, accounts=30)
    say(20 * MINUTE, "journal-tail-cut", "engine")
    say(21 * MINUTE, "dead-letter", "shipper")
    say(22 * MINUTE, "hello", "stranger", "info")
    say(70 * MINUTE, "engine-ready", "engine", "info", **{"exchange.clean": False, "exchange.seconds": 90.0})
    say(71 * MINUTE, "engine-lost")
    say(72 * MINUTE, "log-records-lost")
    for number in range(60):
        why = {"error.message": f"disk {number} broke"}
        say(80 * MINUTE + number * SECOND, "turn-failed", "control", "error", **why)
    say(4 * HOUR, "log-watch-alive", "log-watch", "info")
    return found
