"""What the test bed's processes read: certificates, tokens, kubeconfigs, the audit policy, the simulated kubelets."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

from kernel.errors import PermanentError

STAGES: Final = Path(__file__).resolve().parent.parent.parent / "deploy" / "testbed" / "stages.yaml"
"""How the simulated kubelets behave."""
USERS: Final = {
    "admin": "system:masters",
    "probe": "system:masters",
    "kwok": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
"""Static accounts and their groups. `probe` is the test bed's own: like its components it leaves no audit record."""
CERTIFICATE_DAYS: Final = "3650"
_SILENT: Final = ("system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "kwok", "probe")
AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": list(_SILENT)},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "RequestResponse"},
    ],
}
"""Every request of everybody else is kept with its body: the record of what a program really sent."""


class Files:
    """The files of one test bed below its directory. Keys and tokens are readable by their owner only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ca = root / "ca.crt"
        self.server_certificate, self.server_key = root / "server.crt", root / "server.key"
        self.account_key = root / "account.key"
        self.tokens_file = root / "tokens.csv"
        self.audit_policy = root / "audit-policy.json"
        self.audit_log = root / "audit.log"
        """One JSON object a line."""
        self.pod_log = root / "pod.log"
        """What every pod answers to a request for its log; lines as `2026-01-01T00:00:00.000000000Z stdout F text`."""
        self.stages = root / "stages.yaml"
        self.etcd = root / "etcd"
        self.tokens = {user: secrets.token_hex(16) for user in USERS}

    def output(self, component: str) -> Path:
        """Return where a component's standard output and error go."""
        return self.root / f"{component}.log"

    def kubeconfig(self, name: str) -> Path:
        """Return an account's kubeconfig."""
        return self.root / f"{name}.kubeconfig"

    def write(self, url: str, stages: Path) -> None:
        """Write all of them for an API server at `url`.

        Raises:
            PermanentError: openssl is missing or refuses.
            OSError: the directory cannot be written.
        """
        self._certificates()
        rows = [f'{self.tokens[user]},{user},{user},"{groups}"'.removesuffix(',""') for user, groups in USERS.items()]
        write_private(self.tokens_file, "\n".join(rows) + "\n")
        self.audit_policy.write_bytes(msgspec.json.encode(AUDIT_POLICY))
        self.stages.write_text(stages.read_text(encoding="utf-8").replace("@POD_LOG@", str(self.pod_log)))
        self.pod_log.touch()
        self.audit_log.touch()
        for user in USERS:
            self.write_kubeconfig(user.rpartition(":")[2], self.tokens[user], url)

    def write_kubeconfig(self, name: str, token: str, url: str, namespace: str = "default") -> Path:
        """Write a kubeconfig (0600) for whoever bears `token`; returns its path."""
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "testbed",
            "clusters": [{"name": "testbed", "cluster": {"server": url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name, "namespace": namespace}}],
        }
        path = self.kubeconfig(name)
        write_private(path, msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
        return path

    def _certificates(self) -> None:
        """Make an authority, the API server's certificate and the key that signs service accounts' tokens."""
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        new = ("req", "-x509", *kind, "-days", CERTIFICATE_DAYS)
        self._openssl(
            *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=testbed",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        )  # fmt: skip
        self._openssl(
            *new, "-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt",
            "-subj", "/CN=kube-apiserver",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc",
            "-addext", "basicConstraints=critical,CA:false",
            "-addext", "extendedKeyUsage=serverAuth,clientAuth",
        )  # fmt: skip
        self._openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", self.account_key.name)

    def _openssl(self, *words: str) -> None:
        try:
            done = subprocess.run(["openssl", *words], cwd=self.root, check=False, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise PermanentError(
                "there is no program openssl, which makes the certificates: install openssl"
            ) from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise PermanentError(f"openssl (version 3 is needed) made no certificate: {last}")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def node(name: str, kubelet_port: int) -> dict[str, Any]:
    """Return a simulated node of 32 cores that holds 110 pods."""
    room = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "status": {
            "allocatable": room,
            "capacity": room,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        },
    }
