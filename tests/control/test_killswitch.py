from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from control import killswitch
from kernel.errors import PermanentError
from kernel.time import Instant

AT = Instant(1_700_000_000_000_000_000)


def test_thrown_it_says_who_why_and_when(tmp_path):
    path = tmp_path / "kill-switch.json"
    assert killswitch.read(path) is None
    killswitch.throw(path, by="ann", why="drill", at=AT)
    assert str(killswitch.read(path)) == "on since 2023-11-14T22:13:20.000000Z, thrown by ann: drill"


def test_the_first_reason_is_kept(tmp_path):
    path = tmp_path / "kill-switch.json"
    killswitch.throw(path, by="ann", why="first", at=AT)
    assert killswitch.throw(path, by="bob", why="second", at=AT).why == "first"


def test_released_it_is_off_and_releasing_again_changes_nothing(tmp_path):
    path = tmp_path / "kill-switch.json"
    killswitch.throw(path, by="ann", why="drill", at=AT)
    assert killswitch.release(path)
    assert not killswitch.release(path)
    assert killswitch.read(path) is None


@pytest.mark.parametrize("content", [b"", b"rubbish", b'{"by":', b"\xff\xfe"])
def test_an_unreadable_file_counts_as_thrown(tmp_path, content):
    path = tmp_path / "kill-switch.json"
    path.write_bytes(content)
    assert killswitch.read(path) is not None


def test_a_directory_in_its_place_and_a_missing_state_directory_count_as_thrown(tmp_path):
    (tmp_path / "kill-switch.json").mkdir()
    assert killswitch.read(tmp_path / "kill-switch.json") is not None
    assert killswitch.read(tmp_path / "gone" / "kill-switch.json") is not None


def test_no_torn_file_is_left_behind(tmp_path):
    killswitch.throw(tmp_path / "kill-switch.json", by="ann", why="drill", at=AT)
    assert [path.name for path in tmp_path.iterdir()] == ["kill-switch.json"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="could not be thrown"):
        killswitch.throw(tmp_path / "file" / "kill-switch.json", by="ann", why="drill", at=AT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_it_can_be_thrown_on_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        killswitch.throw(disk / "kill-switch.json", by="ada", why="the disk is full", at=Instant(1))
        assert killswitch.read(disk / "kill-switch.json") is not None
    finally:
        subprocess.run(["umount", str(disk)], check=True)
