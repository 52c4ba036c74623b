"""A child dies with its parent, also one whose parent died while it was being started."""

from __future__ import annotations

import os
import subprocess

from control.child import tied


def test_a_child_of_ours_begins(tmp_path):
    assert subprocess.run(tied(["touch", str(tmp_path / "begun")]), check=False).returncode == 0
    assert (tmp_path / "begun").exists()


def test_a_child_whose_parent_is_gone_by_then_does_not_begin(tmp_path):
    argv = tied(["touch", str(tmp_path / "begun")])
    argv[argv.index(str(os.getpid()))] = "999999"
    assert subprocess.run(argv, check=False).returncode == 1
    assert not (tmp_path / "begun").exists()
