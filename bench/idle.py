"""What an idle estate costs: memory and CPU of every process, no orders flowing, all scrapes and rules at one second.

    python bench/idle.py [SECONDS]

The reference is the bare pair Prometheus and Alertmanager of the same estate, which any such watch would need.
"""

from __future__ import annotations

import sys
import time

import psutil

from bench.parts.figures import verdict
from bench.parts.plant import Estate, estate

MEGABYTE = 1_000_000
SETTLE_S = 10.0
BOUGHT = ("prometheus-1", "alertmanager-1")


def processes(it: Estate) -> dict[str, psutil.Process]:
    found = {"estate": psutil.Process(it.pid)}
    for replicas in it.addresses["workloads"].values():
        found |= {each["id"]: psutil.Process(each["pid"]) for each in replicas if each["pid"]}
    return found


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with estate(load_rate_per_s=0) as it:
        time.sleep(SETTLE_S)
        every = processes(it)
        before = {name: cpu_s(process) for name, process in every.items()}
        began = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        busy = {name: (cpu_s(process) - before[name]) / passed for name, process in every.items()}
        memory = {name: process.memory_full_info() for name, process in every.items()}
    print(f"{'process':<16}{'PSS MB':>10}{'RSS MB':>10}{'CPU %':>10}")
    for name in every:
        print(f"{name:<16}{memory[name].pss / MEGABYTE:10.1f}{memory[name].rss / MEGABYTE:10.1f}{busy[name]:10.1%}")
    pss = sum(each.pss for each in memory.values()) / MEGABYTE
    rss = sum(each.rss for each in memory.values()) / MEGABYTE
    total, bought = sum(busy.values()), sum(busy[name] for name in BOUGHT)
    print(f"{'in all':<16}{pss:10.1f}{rss:10.1f}{total:10.1%}")
    print(f"Prometheus and Alertmanager alone: {bought:.1%}; the estate is {total / bought:.1f} times that")
    verdict("memory (PSS; RSS counts shared pages once a process)", f"{pss:.0f} MB", "600 MB", reached=pss <= 600)
    verdict(f"CPU over {passed:.0f} s", f"{total:.1%} of one core", "15 %", reached=total <= 0.15)


if __name__ == "__main__":
    main()
