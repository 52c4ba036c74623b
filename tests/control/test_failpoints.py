"""Failpoints kill the process once, and only where faults are allowed."""

import subprocess
import sys

import msgspec
import pytest

from control.failpoints import Failpoint, Failpoints

REACH = """
import sys
from pathlib import Path
from control.failpoints import Failpoint, Failpoints
Failpoints(Path(sys.argv[1]), allowed=sys.argv[2] == "allowed").reach(Failpoint(sys.argv[3]))
print("alive")
"""


def reach(path, point=Failpoint.BEFORE_EFFECT, allowed="allowed"):
    return subprocess.run(
        [sys.executable, "-c", REACH, str(path), allowed, point],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def arm(path, *points):
    path.write_bytes(msgspec.json.encode(list(points)))


def test_an_armed_point_kills_once(tmp_path):
    path = tmp_path / "failpoints.json"
    arm(path, Failpoint.BEFORE_EFFECT)
    assert reach(path).returncode == -9
    assert msgspec.json.decode(path.read_bytes()) == []
    assert reach(path).stdout == "alive\n"


@pytest.mark.parametrize("content", [b"", b"[", b'"before-effect"', b"[1]", b'["after-effect"]', b"[]"])
def test_nothing_but_the_armed_point_kills(tmp_path, content):
    path = tmp_path / "failpoints.json"
    path.write_bytes(content)
    Failpoints(path, allowed=True).reach(Failpoint.BEFORE_EFFECT)
    assert path.read_bytes() == content


def test_without_permission_for_faults_there_are_none(tmp_path):
    path = tmp_path / "failpoints.json"
    arm(path, *Failpoint)
    for point in Failpoint:
        Failpoints(path, allowed=False).reach(point)
    Failpoints(tmp_path / "none", allowed=True).reach(Failpoint.AFTER_EFFECT)
