"""What is looked at before any process of an estate starts: the monitoring's programs and files, and the runbooks.

Prometheus and Alertmanager come with a checker each (`promtool`, `amtool`). Where one is missing its look is skipped:
the program itself refuses a broken file, too, only later and less clearly.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from control import server_plan
from control.config import place_of
from control.consent import check_floor
from control.layout import Layout
from control.market import load_calendar
from control.render import ALERTS
from control.settings import Settings
from kernel.errors import InputError, PermanentError, TemporaryError
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.yaml_library import LIBRARY, load_library

TIMEOUT_S: Final = 30.0
_QUOTED: Final = re.compile(r'"([^"\n]{1,80})"')
_LINE: Final = re.compile(r"\bline (\d+)")


def check(settings: Settings, layout: Layout) -> list[str]:
    """Return what is worth saying before a start: runbooks that are left out.

    Raises:
        PermanentError: a program of the monitoring is missing, or the brokers of the journal do not answer.
        InputError: one of its files, the market's calendar or the allow-list is broken; says where.
    """
    prometheus = find(settings.prometheus, "prometheus")
    alertmanager = find(settings.alertmanager, "alertmanager")
    check_prometheus(prometheus, layout.root / "prometheus" / "prometheus.yml")
    check_alertmanager(alertmanager, layout.root / "alertmanager" / "alertmanager.yml")
    check_floor(settings.consent_floor, Path(settings.library) if settings.library else LIBRARY)
    if settings.on == "kubernetes":
        Targets(settings.kube_allowed)
    if settings.calendar is not None:
        load_calendar(settings.calendar)
    if settings.journal == "kafka":
        check_kafka(settings)
    _, broken = load_library(LIBRARY)
    return [f"this runbook is left out, the others go on: {error}" for error in broken]


def check_kafka(settings: Settings) -> None:
    """Ask the brokers that the settings name who they are, and make the topics that are missing.

    Raises:
        PermanentError: none answers, they are not one cluster, or a topic could lose something.
    """
    from exchange.adapters.kafka_topics import prepare  # its client is not loaded where the journal is in files

    try:
        prepare(place_of(server_plan.own_kafka(settings)))
    except TemporaryError as error:
        raise PermanentError(
            f"setting kafka_bootstrap ({settings.kafka_bootstrap}): {error}; start the brokers, or set "
            "TAPEWATCH_JOURNAL=files"
        ) from error


def find(program: str, setting: str) -> Path:
    """Return where a program lies.

    Raises:
        PermanentError: nowhere.
    """
    found = shutil.which(program)
    if found is None:
        raise PermanentError(
            f"there is no program {program} (setting {setting}); `tapewatch doctor` says how to get it"
        )
    return Path(found)


def check_prometheus(program: Path, config: Path) -> None:
    """Have `promtool` read a configuration and its rules.

    Raises:
        InputError: it finds something wrong.
    """
    said = _ask(program, "promtool", "check", "config", str(config))
    if said is None:
        return
    _, _, rest = said.partition("FAILED:")
    lines = (rest.partition("FAILED:")[0] or said).strip().splitlines()
    # Of rules each finding is a line that begins with its file; of the configuration it may go over several lines.
    first = lines[0].strip() if lines else "promtool gave no reason"
    finding = " ".join(" ".join(lines).split()) if first.startswith("parsing") else first
    finding = finding.removeprefix(f"parsing YAML file {config}: ")
    path, _, problem = finding.partition(": ")
    if not Path(path).is_file():
        path, problem = str(config), finding
    raise InputError(*_placed(Path(path), problem), right="correct the file; `promtool check config` tells more")


def check_alertmanager(program: Path, config: Path) -> None:
    """Have `amtool` read a configuration.

    Raises:
        InputError: it finds something wrong.
    """
    said = _ask(program, "amtool", "check-config", str(config))
    if said is None:
        return
    problem = " ".join(said.partition("FAILED: ")[2].partition("amtool: error")[0].split()) or said.strip()[-300:]
    raise InputError(*_placed(config, problem), right=f"it is made from {ALERTS / 'routing'}: correct that")


def _ask(program: Path, checker: str, *arguments: str) -> str | None:
    """Return what a checker says of a broken file; None when all is well, or no checker is there to ask."""
    beside = program.resolve().parent / checker
    found = str(beside) if beside.is_file() else shutil.which(checker)
    if found is None:
        return None
    try:
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode == 0 else done.stderr.replace("amtool: error", "\namtool: error") + done.stdout


def _placed(path: Path, problem: str) -> tuple[str, str]:
    """Return file with line, and the problem; where the checker told no line, the first that holds what it quotes."""
    if told := re.match(r"(\d+:\d+): ", problem):
        return f"{path}:{told[1]}", problem[told.end() :]
    if told := _LINE.search(problem):
        return f"{path}:{told[1]}", problem
    quoted = _QUOTED.search(problem)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if quoted is not None and quoted[1] in line:
            return f"{path}:{number}", problem
    return str(path), problem
