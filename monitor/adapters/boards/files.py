"""All boards, their files, and what differs between the two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kernel.errors import PermanentError
from monitor.adapters.boards.automation import CONTROL, ESTATE
from monitor.adapters.boards.brokers import KAFKA
from monitor.adapters.boards.databases import POSTGRES
from monitor.adapters.boards.edge import EDGE
from monitor.adapters.boards.market import EXCHANGE, MARKET_DATA, WATCHDOG
from monitor.adapters.boards.messages import RABBITMQ
from monitor.adapters.boards.model import Board
from monitor.adapters.boards.overview import OVERVIEW
from monitor.adapters.boards.promises import ANOMALIES, SLO
from monitor.adapters.boards.red_use import RED, USE
from monitor.adapters.boards.region import REGION
from monitor.adapters.boards.sagas import SAGAS
from monitor.adapters.boards.services import ENGINE, GATEWAY, SETTLEMENT
from monitor.adapters.boards.style import to_json
from monitor.adapters.boards.watching import KUBERNETES, MONITORING, PIPELINE

ROOM: Final = Path(__file__).parents[3] / "dashboards"
GRAFANA: Final = ROOM / "grafana"
BOARDS: Final[tuple[Board, ...]] = (
    OVERVIEW, RED, USE, EXCHANGE, PIPELINE, CONTROL, ANOMALIES, SLO, GATEWAY, ENGINE, MARKET_DATA, SETTLEMENT, SAGAS,
    WATCHDOG, ESTATE, MONITORING, KUBERNETES, KAFKA, POSTGRES, RABBITMQ, EDGE, REGION,
)  # fmt: skip


def generated() -> dict[str, str]:
    """Return the name and the text of every board's file."""
    return {f"{board.uid}.json": to_json(board) for board in BOARDS}


def write(directory: Path = GRAFANA) -> list[Path]:
    """Write every board whose file differs; return those written. A board that is no more loses its file.

    Raises:
        PermanentError: the directory cannot be written.
    """
    wanted = generated()
    changed = drift(wanted, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in changed:
            if name in wanted:
                (directory / name).write_text(wanted[name], encoding="utf-8")
            else:
                (directory / name).unlink()
    except OSError as error:
        raise PermanentError(f"{directory} cannot be written: {error.strerror}") from error
    return [directory / name for name in changed]


def drift(wanted: Mapping[str, str], directory: Path = GRAFANA) -> list[str]:
    """Return the files that are not what the boards say: changed, missing, or of no board."""
    there = {path.name for path in directory.glob("*.json")}
    return sorted(
        name
        for name in there | set(wanted)
        if name not in wanted or name not in there or (directory / name).read_text(encoding="utf-8") != wanted[name]
    )
