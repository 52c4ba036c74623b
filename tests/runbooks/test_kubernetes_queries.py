"""On a small cluster every query of a runbook for Kubernetes gives exactly one number: joins and all.

A query that promtool calls sound may still fail, or give several numbers, once there are series.
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import json
import subprocess
from pathlib import Path

import pytest

from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.bind import bind

RULES = Path(__file__).parents[2] / "alerts/rules"
SERVICE = {"memory-leak": "market-data", "consumer-lag": "consumer", "canary-abort": "gateway-canary"}
LABELS = {"replica": "gateway-a", "symbol": "TWA", "node": "n1", "colour": "green", "certificate": "server"}
LABELS["series"] = "gateway-latency"
BOUND = {
    one.name: bind(one, {"service": SERVICE.get(one.name, "gateway"), **LABELS})
    for one in load_library(LIBRARY, "kubernetes")[0]
}
PODS = {
    "gateway": ("gateway-a", "gateway-b"), "gateway-canary": ("gateway-canary-a",), "engine": ("engine-0",),
    "market-data": ("market-data-a",), "settlement": ("settlement-a",), "watchdog": ("watchdog-a",),
    "consumer": ("consumer-a",),
}  # fmt: skip
FOREVER = "x120"


def series():
    """Yield the series of a small cluster, some of it in trouble, as promtool writes them."""
    for workload, pods in PODS.items():
        for pod in pods:
            yield from _pod(workload, pod)
        if workload != "engine":
            yield from _deployment(workload, len(pods))
    for pod in (*PODS["gateway"], *PODS["gateway-canary"]):
        yield from _gateway(pod)
    for name, job in (
        ("exchange_engine_ready", "engine"), ("exchange_engine_queue_depth", "engine"),
        ("exchange_engine_sequence", "engine"), ("exchange_journal_failed", "engine"),
        ("exchange_market_halted", "engine"), ("exchange_feed_sequence", "market-data"),
        ("exchange_settlement_sequence", "settlement"), ("exchange_watchdog_feed_connected", "watchdog"),
    ):  # fmt: skip
        yield f'{name}{{job="{job}"}}', f"1{FOREVER}"
    yield 'exchange_symbol_halted{job="engine",symbol="TWA"}', f"0{FOREVER}"
    for node, ready in (("n1", 0), ("n2", 1)):
        yield f'kube_node_status_condition{{node="{node}",condition="Ready",status="true"}}', f"{ready}{FOREVER}"
        yield f'kube_node_spec_unschedulable{{node="{node}"}}', f"0{FOREVER}"
    for part in range(3):
        yield f'kafka_consumergroup_lag{{consumergroup="consumer",topic="t",partition="{part}"}}', "0+10x120"
    yield 'tapewatch_kube_service_colour{namespace="exchange",service="engine",colour="none"}', f"1{FOREVER}"
    yield 'tapewatch_kube_certificate_expiry_timestamp_seconds{certificate="server"}', f"9000{FOREVER}"
    yield 'anomaly_alert{job="anomaly",series="gateway-latency",service="gateway"}', f"1{FOREVER}"
    yield 'anomaly_fresh_seconds{job="anomaly"}', f"1{FOREVER}"
    yield 'exchange_snapshot_timestamp_seconds{job="engine"}', f"50{FOREVER}"
    yield 'kube_poddisruptionbudget_status_pod_disruptions_allowed{poddisruptionbudget="gateway"}', f"1{FOREVER}"


def _pod(workload, pod):
    node = "n2" if pod == "engine-0" else "n1"
    here = f'namespace="exchange",pod="{pod}",uid="u-{pod}"'
    names = f'label_app_kubernetes_io_name="{workload}",label_app_kubernetes_io_part_of="exchange"'
    yield f"kube_pod_labels{{{here},{names}}}", f"1{FOREVER}"
    yield f'kube_pod_info{{{here},node="{node}"}}', f"1{FOREVER}"
    yield f'kube_pod_status_ready{{{here},condition="true"}}', f"0{FOREVER}"
    yield f'kube_pod_container_resource_limits{{{here},container="main",resource="memory"}}', f"1000{FOREVER}"
    yield f'up{{job="{workload}",replica="{pod}"}}', f"1{FOREVER}"
    yield f'process_resident_memory_bytes{{job="{workload}",replica="{pod}"}}', f"900{FOREVER}"
    for container in ("main", "beside"):
        yield (
            f'kube_pod_container_status_waiting_reason{{{here},container="{container}",reason="CrashLoopBackOff"}}',
            "1x120",
        )
        yield f'kube_pod_container_status_last_terminated_exitcode{{{here},container="{container}"}}', f"78{FOREVER}"
    if pod == "gateway-a":
        yield f"kube_pod_deletion_timestamp{{{here}}}", f"5{FOREVER}"


def _deployment(workload, replicas):
    here = f'namespace="exchange",deployment="{workload}"'
    for name in ("spec_replicas", "status_replicas_available", "status_replicas_unavailable"):
        yield f"kube_deployment_{name}{{{here}}}", f"{replicas}{FOREVER}"
    for name in ("metadata_generation", "status_observed_generation"):
        yield f"kube_deployment_{name}{{{here}}}", f"3{FOREVER}"
    yield f'kube_deployment_status_condition{{{here},condition="Progressing",status="false"}}', f"1{FOREVER}"


def _gateway(pod):
    here = f'job="{pod[:-2]}",replica="{pod}"'
    yield f"exchange_gateway_engine_connected{{{here}}}", f"1{FOREVER}"
    yield f"exchange_gateway_capacity_per_second{{{here}}}", f"400{FOREVER}"
    for outcome in ("accepted", "shed", "unavailable"):
        yield f'exchange_gateway_requests_total{{{here},outcome="{outcome}"}}', "0+50x120"
    for le in ("0.25", "0.5", "+Inf"):
        yield f'exchange_order_ack_seconds_bucket{{{here},le="{le}"}}', "0+100x120"
    yield f"exchange_order_ack_seconds_count{{{here}}}", "0+100x120"


def asked(runbook):
    yield from (guard.evidence for guard in runbook.guards)
    for step in runbook.steps:
        yield from (proof.evidence for proof in (step.proof, step.undo_proof) if proof is not None)


@pytest.mark.parametrize("name", BOUND)
def test_every_query_gives_one_number_and_its_data_has_an_age(name, tmp_path):
    one = [{"labels": "{}", "value": 1}]
    expressions = [f"count(({e.query}) == ({e.query}))" for e in asked(BOUND[name])]
    expressions += [f"count(min(timestamp({e.fresh})))" for e in asked(BOUND[name])]
    case = {
        "rule_files": [str(RULES / "kubernetes.yml")],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": text, "values": values} for text, values in series()],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "60s", "exp_samples": one} for expression in expressions
                ],
            }
        ],
    }
    path = tmp_path / "queries.json"
    path.write_text(json.dumps(case))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
