"""The test bed of an estate on Kubernetes, seen from outside its keeper: asked, filled, its components struck.

What is asked here goes out as the test bed's own account, which may do everything and leaves no audit record: what the
audit log shows is what others did, first of all our control plane.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from control.testbed import background
from control.testbed.cluster import ask
from control.testbed.files import Files
from kernel.errors import PermanentError, TemporaryError

ROOT: Final = Path(__file__).resolve().parent.parent
OVERLAY: Final = ROOT / "deploy" / "kubernetes" / "overlays" / "testbed"
NODES: Final = 3
"""One may be lost, and the two that are left still spread."""
EXCHANGE: Final = "exchange"
CONTROL: Final = "tapewatch"
"""The namespaces of the exchange and of its control plane."""
ACCOUNT: Final = "system:serviceaccount:tapewatch:tapewatch"
"""Who our control plane is to the API server."""
LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{CONTROL}/leases/tapewatch-leader"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
_TOKEN_S: Final = 30 * 24 * 3600
_APPLY_WITHIN_S: Final = 60.0


def keeper_argv(directory: Path) -> tuple[str, ...]:
    """Return how the test bed's keeper is started: it ends all of it when it ends, however that happens."""
    words = ("-m", "cli", "kube", "up", "--foreground", "--nodes", str(NODES), "--state", str(directory))
    return (sys.executable, *words)


class Bed:
    """A running test bed."""

    def __init__(self, directory: Path) -> None:
        """Take up with the test bed in `directory`.

        Raises:
            TemporaryError: none runs there (yet).
        """
        kept = background.running(directory)
        if kept is None:
            raise TemporaryError(background.not_running(directory))
        self.directory = directory
        self.kept = kept
        self.files = Files(directory)
        self._port = urlsplit(kept.url).port or 0
        self._trust = ssl.create_default_context(cafile=str(self.files.ca))
        account = msgspec.json.decode(self.files.kubeconfig("probe").read_bytes())
        self._token = str(account["users"][0]["user"]["token"])

    @property
    def audit_log(self) -> Path:
        """One JSON object a line: what everybody but the test bed itself has asked."""
        return self.files.audit_log

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "", timeout_s: float = 10.0
    ) -> Any:
        """Ask the API server once and return the answer's JSON.

        Raises:
            ApiStatusError: it answered with an error.
            TemporaryError: there was no answer.
        """
        kind = content_type or (MERGE if method == "PATCH" else "application/json")
        return ask(self._port, self._token, self._trust, method, path, body, content_type=kind, timeout_s=timeout_s)

    def kubectl(self, *words: str) -> str:
        """Run kubectl with full rights and return its output; leaves audit records of the account `admin`.

        Raises:
            PermanentError: it failed; carries its words.
        """
        argv = [self.kept.binary, "kubectl", "--kubeconfig", self.kept.kubeconfig]
        argv += ["--cache-dir", str(self.directory / "kubectl"), *words]
        try:
            done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_APPLY_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PermanentError(f"kubectl {' '.join(words)} failed: {error}") from error
        if done.returncode:
            raise PermanentError(f"kubectl {' '.join(words)} failed: {done.stderr.strip()}")
        return done.stdout

    def install(self) -> None:
        """Put the exchange, the control plane's account and its rights into the cluster.

        Raises:
            PermanentError: the API server takes a manifest not.
        """
        self.kubectl("apply", "-k", str(OVERLAY))

    def kubeconfig_of(self, account: str) -> Path:
        """Return a new kubeconfig (0600) with the token of one of the control plane's service accounts."""
        path = f"/api/v1/namespaces/{CONTROL}/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        made = self.request("POST", path, {**asked, "spec": {"expirationSeconds": _TOKEN_S}})
        token = str(made["status"]["token"])
        return self.files.write_kubeconfig(account, token, self.kept.url, CONTROL)

    def cluster_id(self) -> str:
        """Return the uid of the namespace kube-system, by which a cluster is known."""
        return str(self.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"])

    # --- what the drill asks ----------------------------------------------------------------------------------------

    def items(self, path: str) -> list[dict[str, Any]]:
        """Return the objects of a list."""
        found: list[dict[str, Any]] = self.request("GET", path)["items"]
        return found

    def pods(self, workload: str = "") -> list[dict[str, Any]]:
        """Return the exchange's pods, or those of one workload, that are not being ended; oldest first."""
        label = f"app.kubernetes.io/name={workload}" if workload else "app.kubernetes.io/part-of=exchange"
        found = self.items(f"/api/v1/namespaces/{EXCHANGE}/pods?labelSelector={label}")
        there = [one for one in found if "deletionTimestamp" not in one["metadata"]]
        return sorted(there, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a Deployment of the exchange."""
        found: dict[str, Any] = self.request("GET", deployment_path(name))
        return found


def deployment_path(name: str) -> str:
    """Return where a Deployment of the exchange is found."""
    return f"/apis/apps/v1/namespaces/{EXCHANGE}/deployments/{name}"
