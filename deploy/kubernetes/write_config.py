"""Write the configurations that the pods mount: `python deploy/kubernetes/write_config.py`.

They are written by the program that reads them, so that they fit it; a test writes them anew and compares.
"""  # noqa: INP001 - a script

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from control.addresses import write_atomically  # noqa: E402 - found from the root
from control.config import AnomalyTuning, KubeAccess, RoleConfig  # noqa: E402 - found from the root
from control.settings import Settings  # noqa: E402 - likewise
from control.state_dir import generate_instruments  # noqa: E402 - likewise

BASE: Final = Path("deploy/kubernetes/base")
PORTS: Final = {
    "engine": 18710, "gateway": 18800, "market-data": 18720, "settlement": 18730, "watchdog": 18740,
    "control": 18700, "kube-state": 18760, "anomaly": 18795,
}  # fmt: skip
"""The HTTP port of each role; a pod has its address to itself, so every gateway has the same."""
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - a pod's address is not known before; network policies say who may come
HOSTS: Final = {
    "engine": "engine.exchange.svc", "market-data": "market-data.exchange.svc", "control": "control.tapewatch.svc",
}  # fmt: skip
"""The Services. Not a pod's own name (`engine-0.engine`): a switch to another colour must lead everybody along."""

ALLOWED: Final = (
    "exchange/Deployment/gateway", "exchange/Deployment/gateway-canary", "exchange/Deployment/market-data",
    "exchange/Deployment/settlement", "exchange/Deployment/watchdog", "exchange/StatefulSet/engine",
    "exchange/ConfigMap/exchange-config", "exchange/ConfigMap/exchange-flags",
    "exchange/Service/engine", "exchange/Service/gateway", "Node/*",
)  # fmt: skip
"""What runbooks may touch: no more than the account has rights to."""
CLUSTER: Final = {
    "control": KubeAccess(
        kubeconfig="", allowed=ALLOWED, peers=tuple(f"http://control-{n}.control.tapewatch:18700" for n in (0, 1))
    ),
    "kube-state": KubeAccess(kubeconfig=""),
}
"""Who speaks to the API server, each as the account of its pod."""
PLANE: Final = frozenset({*CLUSTER, "anomaly"})
"""The roles of the control plane; the others are the exchange's."""
DETECTORS: Final = AnomalyTuning(url=f"http://anomaly.tapewatch.svc:{PORTS['anomaly']}")
"""Where control reads what detectors found."""


def room(role: str) -> str:
    """Return the directory of the base that a role belongs to."""
    return "control" if role in PLANE else "exchange"


def write(root: Path) -> list[Path]:
    """Write each role's configuration below `root` and return the paths."""
    defaults = Settings.model_construct()  # neither the environment nor a tapewatch.toml may change what is kept
    instruments = generate_instruments(defaults.symbols, defaults.seed)
    written = []
    for role, port in PORTS.items():
        config = RoleConfig(
            role=role, replica=role, state="/state", port=port, listen=EVERYWHERE, engine_host=HOSTS["engine"],
            market_data_host=HOSTS["market-data"], control_host=HOSTS["control"],
            engine_http_port=PORTS["engine"], engine_stream_port=PORTS["engine"] + 1,
            market_data_port=PORTS["market-data"], settlement_port=PORTS["settlement"], control_port=PORTS["control"],
            estate_port=defaults.port_estate,
            prometheus_url="http://prometheus.monitoring:9090", alertmanager_url="http://alertmanager.monitoring:9093",
            instruments=instruments, gateway_capacity_per_s=defaults.gateway_capacity_per_s, kube=CLUSTER.get(role),
            anomaly=DETECTORS if role == "control" else AnomalyTuning(),
        )  # fmt: skip
        written.append(root / BASE / room(role) / "config" / f"{role}.json")
        write_atomically(written[-1], msgspec.json.format(msgspec.json.encode(_said(config)), indent=2) + b"\n")
    return written


def _said(config: msgspec.Struct) -> dict[str, Any]:
    """Return what of a configuration is not left to the program's defaults."""
    found = {}
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        default = (
            field.default_factory()
            if field.default is msgspec.NODEFAULT and callable(field.default_factory)
            else field.default
        )
        if value != default:
            found[field.encode_name] = _said(value) if isinstance(value, msgspec.Struct) else msgspec.to_builtins(value)
    return found


if __name__ == "__main__":
    write(ROOT)
