"""The verb `drill`."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from control import region_drill
from control.drill import Drill, Result, run_folder, tidy
from control.drill_view import View, print_result, print_summary
from control.scenario import REGION_LOSS, Scenario, known, load_scenario
from control.settings import Settings, load_settings
from control.terminal import err, escape, out, print_json
from control.verbs_kube import with_binary
from kernel.errors import InputError, PermanentError, TapewatchError

ALERTS: Final = "alerts"
USUAL: Final = {"local": "gateway-hang", "distributed": "broker-loss", "kubernetes": "pod-hang"}


def run_drills(  # noqa: PLR0913 - a verb's options
    wanted: str,
    root: Path,
    settings: Settings,
    *,
    as_json: bool,
    keep: bool,
    times: int = 1,
    every: bool = False,
    only: Sequence[str] = (),
) -> bool:
    """Run one scenario or all, `times` in a row; print verdicts; return whether every one passed.

    `alerts` is no scenario of a plant: see `control.alert_drill`; `every` and `only` choose what it fires. On
    Kubernetes the test bed is built first, if it is not there.

    Raises:
        InputError: there is no such scenario or platform.
        PermanentError: the test bed cannot be built.
    """
    if wanted == ALERTS:
        if times > 1:
            raise InputError("--times", "does not go with alerts", right="tapewatch drill alerts")
        return run_alert_drill(only, root, every=every, as_json=as_json, keep=keep)
    if every or only:
        raise InputError(
            "--every and --only", f"do not go with {wanted or 'a scenario'}", right="tapewatch drill alerts"
        )
    settings = with_binary(settings)
    os.environ["TAPEWATCH_TESTBED"] = settings.testbed
    place = settings.place
    wanted = wanted or USUAL[place]
    listed = known(place) if wanted == "all" else [wanted]
    two = {REGION_LOSS} & set(known(place))
    runs: list[Callable[..., Result]] = [
        _run_region if name in two else partial(_run_one, load_scenario(name, place)) for name in listed
    ]
    console = err if as_json else out
    results = []
    for run in runs * times:
        result = run(root, console is err, keep=keep)
        results.append(result)
        if not as_json:
            print_result(out, result)
    if as_json:
        print_json([msgspec.to_builtins(result) for result in results] if wanted == "all" or times > 1 else results[0])
    elif len(results) > 1:
        print_summary(out, results)
    return all(result.passed for result in results)


def run_alert_drill(only: Sequence[str], root: Path, *, every: bool, as_json: bool, keep: bool) -> bool:
    """Make alerts fire and follow them; print verdicts; return whether every one passed.

    Raises:
        InputError: `only` names something unknown.
        TapewatchError: Prometheus or Alertmanager cannot be started.
    """
    from control.alert_drill import AlertDrill

    folder = run_folder(root, "alerts")
    console = err if as_json else out
    began_s = time.monotonic()
    marks = {"step": "[cyan]·[/]", "seen": "[green]✓[/]", "missed": "[bold red]✗[/]"}

    def tell(kind: str, line: str) -> None:
        console.print(f"  {marks[kind]} {escape(line)}", soft_wrap=True)

    drill = AlertDrill(load_settings(), folder, tell, every=every, only=only)
    try:
        result = asyncio.run(drill.run())
    except OSError as error:
        raise PermanentError(f"the drill cannot be kept in {folder}: {error.strerror or error}") from error
    if as_json:
        print_json(result)
    else:
        good = sum(one.passed for one in result.alerts)
        colour = "green" if result.passed else "bold red"
        out.print(f"[{colour}]{good} of {len(result.alerts)} alerts[/] in {time.monotonic() - began_s:.0f} s")
        if result.left_out:
            out.print(
                f"left to promtool, they take longer to fire: {escape(', '.join(result.left_out))}", soft_wrap=True
            )
        out.print(f"kept: {escape(str(folder / 'result.json'))}", soft_wrap=True)
    if not keep:
        for name in ("data", "alerts"):
            shutil.rmtree(folder / name, ignore_errors=True)
    return result.passed


def _run_one(scenario: Scenario, root: Path, quiet: bool, *, keep: bool) -> Result:  # noqa: FBT001 - where it is shown
    folder = run_folder(root, scenario.name)
    return _shown(scenario, folder, lambda tell: Drill(scenario, folder, tell).run(), quiet=quiet, keep=keep)


def _run_region(root: Path, quiet: bool, *, keep: bool) -> Result:  # noqa: FBT001 - where it is shown
    """Run the one drill of two estates. It has no file: a scenario is played on one."""
    folder = run_folder(root, region_drill.NAME)
    scenario = Scenario(
        name=region_drill.NAME, title=region_drill.TITLE, story=region_drill.STORY, estate="distributed",
        acts=(), links=(), outcome="",
    )  # fmt: skip
    return _shown(scenario, folder, lambda tell: region_drill.RegionDrill(folder, tell).run(), quiet=quiet, keep=keep)


def _shown(
    scenario: Scenario,
    folder: Path,
    run: Callable[[Callable[[str, str], None]], Coroutine[Any, Any, Result]],
    *,
    quiet: bool,
    keep: bool,
) -> Result:
    """Run a drill before people's eyes; one that comes to no verdict has failed."""
    with View(err if quiet else out, scenario) as view:
        try:
            result = asyncio.run(run(view.tell))
        except TapewatchError as error:
            result = Result(
                scenario=scenario.name,
                passed=False,
                links=[],
                timings={},
                orders={"sent": 0, "acknowledged": 0, "rejected": 0, "lost": 0, "duplicated": 0},
                actions=[],
                outcome="it did not come to a verdict",
                report="",
                problems=[str(error)],
            )
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    tidy(folder, keep=keep or not result.passed)
    return result
