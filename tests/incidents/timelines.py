"""Sample timelines: what the control loop writes in the cases a post-mortem must tell. Not a test; tests fold them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from incidents.incident import Incident, fold
from incidents.timeline import Draft, Entry, EntryKind, empty_head, seal_all
from kernel.time import SECOND, Instant, seconds

KEY = b"a key of the sample timelines"
START = Instant(1_772_443_800 * SECOND)  # 2026-03-02 09:30:00 UTC
GATEWAY_UP = 'count(up{job="gateway"} == 1)'
LATENCY = "histogram_quantile(0.99, sum by (le) (rate(gateway_request_seconds_bucket[5s])))"


class Scribe:
    """Writes drafts at seconds after START and seals them."""

    def __init__(self, incident: str) -> None:
        self.incident = incident
        self.drafts: list[Draft] = []

    def __call__(self, at_s: float, kind: EntryKind, source: str, text: str, /, **data: object) -> None:
        self.drafts.append(Draft(at(at_s), kind, source, text, data))

    def opened(self, at_s: float, title: str, level: int, service: str, team: str = "trading-platform") -> None:
        data = {
            "incident": self.incident,
            "title": title,
            "level": level,
            "service": service,
            "team": team,
            "key": service,
        }
        self(at_s, EntryKind.OPENED, "control", f"Opened: {title}", **data)

    def alert(self, at_s: float, name: str, **labels: str) -> str:
        fingerprint = hashlib.sha256(repr((name, sorted(labels.items()))).encode()).hexdigest()[:16]
        self(
            at_s, EntryKind.ALERT_FIRING, "alertmanager", f"{name} fires for {', '.join(labels.values()) or 'the exchange'}",  # noqa: E501 - a sentence or a table row stays whole
            fingerprint=fingerprint, alertname=name, labels={"alertname": name, "team": "trading-platform", **labels},
            annotations={
                "summary": f"{name}: {', '.join(labels.values())} needs attention",
                "runbook_url": f"https://runbooks.example/{name}", "dashboard": "https://grafana.example/d/exchange",
            },
            starts_at=at(at_s - 0.2), path="prometheus",
        )  # fmt: skip
        return fingerprint

    def cleared(self, at_s: float, name: str, fingerprint: str) -> None:
        data = {"fingerprint": fingerprint, "alertname": name, "ends_at": at(at_s - 0.1)}
        self(at_s, EntryKind.ALERT_RESOLVED, "alertmanager", f"{name} is resolved", **data)

    def run(self, at_s: float, runbook: str, title: str, target: str) -> None:
        data = {"run": "run-1", "runbook": runbook, "title": title, "target": target}
        self(at_s, EntryKind.RUN_STARTED, f"runbook:{runbook}", f"Run started: {title}", **data)

    def read(
        self, at_s: float, purpose: str, name: str, query: str, relation: str, expected: float, value: float | None,
        *, holds: bool, unknown: str = "",
    ) -> None:  # fmt: skip
        said = value if value is not None else f"unknown ({unknown})"
        self(
            at_s, EntryKind.EVIDENCE_READ, "prometheus", f"{purpose} {name}: read {said}, asked {relation} {expected}",
            run="run-1", purpose=purpose, name=name, query=query, relation=relation, expected=expected, value=value,
            data_at=at(at_s - 0.3) if value is not None else None, unknown=unknown, holds=holds,
        )  # fmt: skip

    def act(
        self, at_s: float, took_s: float, action: Mapping[str, object], before: Mapping[str, str], after: Mapping[str, str],  # noqa: E501 - a sentence or a table row stays whole
        *, undo: bool = False,
    ) -> None:  # fmt: skip
        key, verb = f"{self.incident}/run-1/{len(self.drafts)}", "undo" if undo else "do"
        data = {"run": "run-1", "key": key, "action": action, "undo": undo}
        permit = {"run": "run-1", "action": action, "granted": True, "reason": "", "detail": ""}
        self(at_s, EntryKind.PERMISSION, "control", f"Permitted: {verb} {action['type']}", **permit)
        self(at_s, EntryKind.ACTION_ASKED, "control", f"Asked to {verb} {action['type']}", **data)
        told = ", ".join(f"{key} {before.get(key, '?')} -> {value}" for key, value in after.items())
        done = {**data, "ok": True, "before": before, "after": after, "error": ""}
        self(at_s + took_s, EntryKind.ACTION_DONE, "estate", f"{action['type']}: {told}", **done)

    def ended(self, at_s: float, runbook: str, outcome: str, reason: str = "", detail: str = "") -> None:
        data = {"run": "run-1", "runbook": runbook, "outcome": outcome, "reason": reason, "detail": detail}
        self(at_s, EntryKind.RUN_ENDED, f"runbook:{runbook}", f"Run ended: {outcome}", **data)

    def state(self, at_s: float, before: str, to: str, signal: str, source: str = "control") -> None:
        self(at_s, EntryKind.STATE_CHANGED, source, f"{before} -> {to}", **{"from": before, "to": to, "signal": signal})

    def curve(
        self, at_s: float, name: str, unit: str, query: str, points: list[tuple[float, float | None]], **marks: float
    ) -> None:
        data = {
            "name": name, "unit": unit, "query": query, "points": [[at(when), value] for when, value in points],
            "marks": {mark: at(when) for mark, when in marks.items()},
        }  # fmt: skip
        self(at_s, EntryKind.CURVE, "prometheus", f"{name} over the incident's time", **data)

    def impact(self, at_s: float, orders: int, notional: int, minutes: float) -> None:
        data = {
            "orders": orders,
            "notional_ticks": notional,
            "minutes": minutes,
            "source": "the load generator's record",
        }
        self(at_s, EntryKind.IMPACT, "exchange", f"{orders} orders were refused or delayed", **data)

    def seal(self) -> tuple[Incident, list[Entry]]:
        entries, _ = seal_all(self.drafts, empty_head(self.incident, KEY), KEY)
        return fold(entries), entries


def at(at_s: float) -> Instant:
    return Instant(START + seconds(at_s))


def _latency(until: float, bad_from: float, bad_to: float, bad: float) -> list[tuple[float, float | None]]:
    return [
        (
            float(t),
            (0.012 + 0.004 * math.sin(t * 1.7)) if not bad_from <= t < bad_to else bad * (1 + 0.12 * math.sin(t * 2.3)),
        )
        for t in range(-20, int(until))
    ]


def gateway_hang() -> tuple[Incident, list[Entry]]:
    """A gateway is stopped by a signal, restarted, and the proof holds."""
    write, book = Scribe("INC-20260302-0001"), "gateway-down"
    write.opened(3.2, "gateway-2 does not answer", 2, "gateway")
    alert = write.alert(3.2, "GatewayDown", service="gateway", replica="gateway-2")
    write.run(3.25, book, "Restart a gateway that does not answer", "gateway/gateway-2")
    write.read(3.3, "guard", "this gateway is down", 'up{replica="gateway-2"}', "==", 0, 0.0, holds=True)
    write.read(3.3, "guard", "another gateway serves", GATEWAY_UP, ">=", 1, 1.0, holds=True)
    action = {"type": "restart_replica", "workload": "gateway", "replica": "gateway-2"}
    write.act(3.35, 0.42, action, {"pid": "41235", "uid": "a1"}, {"pid": "41788", "uid": "b7"})
    write.state(4.0, "open", "acknowledged", "acknowledge", "person:ada")
    for step in range(9):
        ready = 2.0 if step >= 4 else 1.0
        write.read(4.5 + step, "proof", "both gateways answer", GATEWAY_UP, ">=", 2, ready, holds=ready == 2)
    write.ended(12.6, book, "mended")
    write.state(12.6, "acknowledged", "mitigated", "verified")
    write.cleared(14.1, "GatewayDown", alert)
    write.state(24.1, "mitigated", "resolved", "cleared")
    marks = {"fault": 0.0, "alert": 3.2, "action": 3.77, "proof": 12.6, "resolved": 24.1}
    up: list[tuple[float, float | None]] = [(float(t), 1.0 if 1 <= t < 8 else 2.0) for t in range(-20, 30)]
    write.curve(24.2, "proof_gateways_answering", "gateways", GATEWAY_UP, up, **marks)
    write.curve(24.2, "order_latency_p99", "seconds", LATENCY, _latency(30, 0, 6, 0.9), **marks)
    write.impact(24.3, 1204, 98_450_210, 0.2)
    return write.seal()


def wrong_remedy() -> tuple[Incident, list[Entry]]:
    """Scaling out does not mend slow syncs: not proven, undone, handed over; still open."""
    write, book = Scribe("INC-20260302-0002"), "order-latency-high"
    write.opened(16.0, "Orders are answered slowly", 1, "gateway")
    write.alert(16.0, "OrderLatencyHigh", service="gateway")
    write.run(16.1, book, "Add a gateway when orders are slow", "gateway")
    write.read(
        16.2, "guard", "load is the reason", "sum(rate(gateway_requests_total[5s]))", ">", 400, 812.5, holds=True
    )
    scale = {"type": "scale", "workload": "gateway", "by": 1, "minimum": 2, "maximum": 4}
    write.act(16.3, 1.1, scale, {"replicas": "2"}, {"replicas": "3"})
    for step in range(20):
        write.read(18 + step, "proof", "orders are fast again", LATENCY, "<", 0.1, 0.41 + step / 1000, holds=False)
    restore = {"type": "set_replicas", "workload": "gateway", "replicas": 2, "only_if": 3}
    write.act(39.0, 0.8, restore, {"replicas": "3"}, {"replicas": "2"}, undo=True)
    write.read(41.0, "undo_proof", "two gateways answer", GATEWAY_UP, "==", 2, 2.0, holds=True)
    write.ended(41.2, book, "undone", "not_proven", "latency stayed above its bound for 20 s")
    what = "Look at the engine's journal sync times; scaling gateways does not help. Do not repeat the runbook."
    data = {"reason": "the remedy was not proven and was undone", "what_to_do": what}
    write(41.3, EntryKind.HANDED_OVER, "control", "A person is needed: the remedy was not proven", **data)
    data = {"runbook": book, "reason": "ineffective", "detail": "1 run without proof in the last hour"}
    write(61.0, EntryKind.RUN_DECLINED, "control", "Not started again", **data)
    marks = {"fault": 0.0, "alert": 16.0, "action": 17.4, "undone": 39.8}
    write.curve(62.0, "order_latency_p99", "seconds", LATENCY, _latency(62, 2, 99, 0.42), **marks)
    write.impact(62.0, 18_310, 1_204_877_000, 1.03)
    return write.seal()


def no_evidence() -> tuple[Incident, list[Entry]]:
    """Prometheus dies in mid-incident: nothing is touched, a person is asked."""
    write, book = Scribe("INC-20260302-0003"), "settlement-lagging"
    write.opened(5.0, "Settlement lags behind the trades", 2, "settlement", "post-trade")
    write.alert(5.0, "SettlementLagging", service="settlement", replica="settlement-1")
    write.run(5.1, book, "Restart a settlement consumer that lags", "settlement/settlement-1")
    write.read(
        5.2,
        "guard",
        "the lag is real",
        "max(settlement_lag_trades)",
        ">",
        500,
        None,
        holds=False,
        unknown="unreachable",
    )
    write.ended(5.3, book, "refused", "no_evidence", "the lag is real: connection refused")
    data = {
        "reason": "monitoring gave no data",
        "what_to_do": "Bring Prometheus back first, then judge the lag by the ledger's offset.",
    }
    write(5.3, EntryKind.HANDED_OVER, "control", "A person is needed: monitoring gave no data", **data)
    write(
        90.0,
        EntryKind.NOTE,
        "person:grace",
        "Prometheus was restarted by hand",
        by="grace",
        text="Prometheus was restarted by hand",
    )
    return write.seal()


def storm() -> tuple[Incident, list[Entry]]:
    """One cause, four hundred alerts: one incident, one run, one halt, and a relapse."""
    write, book = Scribe("INC-20260302-0004"), "engine-down"
    write.opened(2.0, "The matching engine is down", 1, "engine")
    first = write.alert(2.0, "EngineDown", service="engine", replica="engine-1")
    write.run(2.1, book, "Recover a crashed engine", "engine/engine-1")
    for n in range(260):
        write.alert(2.2 + n / 200, "OrdersRejected", service="gateway", symbol=f"SYM{n:03d}")
    write.read(3.6, "guard", "the engine is down", 'up{job="engine"}', "==", 0, 0.0, holds=True)
    action = {"type": "restart_replica", "workload": "engine", "replica": "engine-1"}
    write.act(3.7, 0.6, action, {"pid": "812"}, {"pid": "977"})
    for n in range(140):
        write.alert(4.5 + n / 100, "FeedStalled", service="market-data", symbol=f"SYM{n:03d}")
    write.read(8.0, "proof", "the engine takes orders", "exchange_engine_ready", "==", 1, 1.0, holds=True)
    write.act(8.2, 0.1, {"type": "halt_symbol", "symbol": "ACME", "reason": "gap"}, {"halted": "no"}, {"halted": "yes"})
    write.ended(8.5, book, "mended")
    write.state(8.5, "open", "mitigated", "verified")
    write.state(12.0, "mitigated", "open", "relapsed")
    write.state(15.0, "open", "mitigated", "verified")
    write.cleared(16.0, "EngineDown", first)
    write.state(30.0, "mitigated", "resolved", "cleared")
    return write.seal()


def bare() -> tuple[Incident, list[Entry]]:
    """An incident that has only been opened."""
    write = Scribe("INC-20260302-0005")
    write.opened(0.0, "Something is amiss", 3, "monitoring", "observability")
    return write.seal()


SAMPLES = {
    "gateway-hang": gateway_hang,
    "wrong-remedy": wrong_remedy,
    "no-evidence": no_evidence,
    "storm": storm,
    "bare": bare,
}
