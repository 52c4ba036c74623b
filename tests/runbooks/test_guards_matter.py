"""Every rail has a test that fails without it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runbooks.policy

ROOT = Path(__file__).parents[2]
RAILS = sorted(
    node.name
    for module in ("policy", "rails")
    for node in ast.parse((ROOT / "runbooks" / f"{module}.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("refuse_")
)
TESTS = ("tests/runbooks/test_policy.py", "tests/runbooks/test_rails.py")


def suite(without):
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.runbooks.without_guard", "-p", "no:cacheprovider"]
    env = {**os.environ, "WITHOUT_GUARD": without}
    return subprocess.run([*argv, *TESTS], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_every_rail_is_asked_by_the_policy():
    source = (ROOT / "runbooks" / "policy.py").read_text()
    asked = {name for name in RAILS if len(re.findall(rf"\b{name}\(", source.replace(f"def {name}(", ""))) >= 1}
    assert asked == set(RAILS)
    assert all(hasattr(runbooks.policy, name) for name in RAILS)
    assert len(RAILS) >= 19


@pytest.mark.long
def test_with_all_rails_the_suite_passes():
    told = suite("")
    assert told.returncode == 0, told.stdout


@pytest.mark.long
@pytest.mark.parametrize("rail", RAILS)
def test_without_a_rail_a_test_fails(rail):
    told = suite(rail)
    assert told.returncode == 1, told.stdout[-2000:]
    assert re.search(r"\b1 failed\b", told.stdout), told.stdout[-2000:]
