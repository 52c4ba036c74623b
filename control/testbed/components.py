"""The five processes of the test bed: their order, ports and flags. Each flag that is no address has its reason."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control.addresses import HOST
from control.testbed.files import Files
from kernel.errors import PermanentError

ORDER: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
"""What others need comes first; all after the API server die without it at their start, so they wait for it."""
_PORT_RANGE: Final = (20_000, 32_000)
"""Below the kernel's range for outgoing connections: a component that is started again finds its port free."""
_TRIES: Final = 1_000


@dataclass(frozen=True)
class Ports:
    """The ports of one test bed, all on loopback."""

    api: int
    etcd: int
    etcd_peer: int
    kubelet: int

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{HOST}:{self.api}"


def choose_ports() -> Ports:
    """Return four free ports, at random, so that test beds that start together do not meet.

    Raises:
        PermanentError: none are free.
    """
    chance = random.SystemRandom()
    found: set[int] = set()
    for _ in range(_TRIES):
        port = chance.randrange(*_PORT_RANGE)
        with socket.socket() as trial:
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
        found.add(port)
        if len(found) == 4:  # noqa: PLR2004 - as many as `Ports` has
            return Ports(*found)
    raise PermanentError(f"no free ports between {_PORT_RANGE[0]} and {_PORT_RANGE[1]} on {HOST}")


def argv(binary: str, component: str, files: Files, ports: Ports) -> list[str]:
    """Return the command line of a component."""
    flags: dict[str, Callable[[Files, Ports], list[str]]] = {
        "etcd": _etcd,
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controllers,
        "kube-scheduler": _scheduler,
        "kwok": _kwok,
    }
    return [binary, component, *flags[component](files, ports)]


def _etcd(files: Files, ports: Ports) -> list[str]:
    client, peer = f"http://{HOST}:{ports.etcd}", f"http://{HOST}:{ports.etcd_peer}"
    return [
        "--data-dir", str(files.etcd), "--log-level", "warn",
        "--unsafe-no-fsync",  # what a test bed stores need not survive the machine
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        "--heartbeat-interval", "50", "--election-timeout", "500",  # alone, it need not wait a second to elect itself
    ]  # fmt: skip


def _apiserver(files: Files, ports: Ports) -> list[str]:
    return [
        "--etcd-servers", f"http://{HOST}:{ports.etcd}",
        "--bind-address", HOST, "--secure-port", str(ports.api), "--advertise-address", HOST,
        "--endpoint-reconciler-type", "none",  # loopback is no valid address of an endpoint
        "--tls-cert-file", str(files.server_certificate), "--tls-private-key-file", str(files.server_key),
        "--client-ca-file", str(files.ca), "--token-auth-file", str(files.tokens_file),
        "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-account-key-file", str(files.account_key),
        "--service-account-signing-key-file", str(files.account_key),
        "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
        "--service-cluster-ip-range", "10.96.0.0/24", "--profiling=false",
        "--kubelet-certificate-authority", str(files.ca),
        "--audit-policy-file", str(files.audit_policy), "--audit-log-path", str(files.audit_log),
    ]  # fmt: skip


def _controllers(files: Files, ports: Ports) -> list[str]:  # noqa: ARG001 - each component's flags are made alike
    return [
        "--kubeconfig", str(files.kubeconfig("kube-controller-manager")),
        "--secure-port", "0", "--leader-elect=false",
        "--service-account-private-key-file", str(files.account_key), "--root-ca-file", str(files.ca),
        "--use-service-account-credentials=true",
        "--kube-api-qps", "500", "--kube-api-burst", "500",
        "--node-monitor-grace-period", "24h",  # nodes send no heartbeats; they fail by a label
        # The usual pauses of the autoscaler are made for metrics that take a minute to come.
        "--horizontal-pod-autoscaler-sync-period", "1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period", "1s",
        "--horizontal-pod-autoscaler-initial-readiness-delay", "1s",
    ]  # fmt: skip


def _scheduler(files: Files, ports: Ports) -> list[str]:  # noqa: ARG001 - as above
    return [
        "--kubeconfig", str(files.kubeconfig("kube-scheduler")), "--secure-port", "0", "--leader-elect=false",
        "--kube-api-qps", "500", "--kube-api-burst", "500",
    ]  # fmt: skip


def _kwok(files: Files, ports: Ports) -> list[str]:
    return [
        "--kubeconfig", str(files.kubeconfig("kwok")), "--manage-all-nodes", "--config", str(files.stages),
        "--node-ip", HOST, "--node-port", str(ports.kubelet), "--server-address", f"{HOST}:{ports.kubelet}",
        "--tls-cert-file", str(files.server_certificate), "--tls-private-key-file", str(files.server_key),
        "--node-lease-duration-seconds", "0",  # else a restarted one waits for the lease of the dead one to run out
    ]  # fmt: skip
