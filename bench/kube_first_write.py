"""From an incident's opening to the first write that the API server received, on whole estates on Kubernetes.

    python bench/kube_first_write.py [TIMES]

Each time is a drill of `pod-hang` on a fresh cluster. The span ends at the audit log's `requestReceivedTimestamp` of
the first write of our account that was carried out; it begins with the incident, opened as the webhook is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.parts.figures import percentile, spread, verdict

GOAL_S = 0.150


def drill(folder: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "cli", "drill", "pod-hang", "--on", "kubernetes", "--json", "--folder", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = [drill(Path(folder)) for _ in range(times)]
    passed = [result for result in results if result["passed"]]
    print(f"{len(passed)} of {times} drills passed")
    if not passed:
        return
    spans = [result["timings"]["incident_to_first_write_s"] for result in passed]
    spread("incident to first write", spans)
    spread("action to proof", [result["timings"]["action_to_proof_s"] for result in passed])
    p99 = percentile(spans, 0.99)
    verdict("p99 to the first write", f"{p99 * 1000:.0f} ms", f"{GOAL_S * 1000:.0f} ms", reached=p99 <= GOAL_S)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
