"""The verb `drill`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from control.drill import Drill, Result, run_folder, tidy
from control.drill_view import View, print_result, print_summary
from control.scenario import Scenario, load_scenario, names
from control.settings import load_settings
from control.terminal import err, out, print_json
from control.verbs_kube import with_binary
from kernel.errors import TapewatchError

USUAL: Final = {"local": "gateway-hang", "kubernetes": "pod-hang"}


def run_drills(wanted: str, root: Path, on: str | None, *, as_json: bool, keep: bool) -> bool:
    """Run one scenario or all; print verdicts; return whether every one passed.

    On Kubernetes the test bed is built first, if it is not there.

    Raises:
        InputError: there is no such scenario or platform.
        PermanentError: the test bed cannot be built.
    """
    settings = with_binary(load_settings(on=on))
    os.environ["TAPEWATCH_TESTBED"] = settings.testbed
    wanted = wanted or USUAL[settings.on]
    chosen = [load_scenario(name, settings.on) for name in (names(settings.on) if wanted == "all" else [wanted])]
    console = err if as_json else out
    results = []
    for scenario in chosen:
        result = _run_one(scenario, root, console is err, keep=keep)
        results.append(result)
        if not as_json:
            print_result(out, result)
    if as_json:
        print_json([msgspec.to_builtins(result) for result in results] if wanted == "all" else results[0])
    elif len(results) > 1:
        print_summary(out, results)
    return all(result.passed for result in results)


def _run_one(scenario: Scenario, root: Path, quiet: bool, *, keep: bool) -> Result:  # noqa: FBT001 - where it is shown
    folder = run_folder(root, scenario.name)
    with View(err if quiet else out, scenario) as view:
        try:
            result = asyncio.run(Drill(scenario, folder, view.tell).run())
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
