# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""A disk in trouble is told honestly: nothing is acknowledged after a failed write or sync, and no sync is tried again.

The system calls themselves fail here (strace injects the error), the file system is full (a small tmpfs, or a limit on
the size of files), or power is lost: whatever was not synced is gone, or is there in part.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.adapters.disk import OsDisk
from exchange.adapters.file_log import FileLog, list_segments, read_records
from exchange.adapters.log_check import check_log
from exchange.adapters.recovery import recover
from exchange.recording import RecordingLog
from kernel.chance import stream
from tests.exchange.plant import INSTRUMENTS, paths

ROOT = Path(__file__).parents[2]
COUNT = 40


EITHER = ("undecided", "journal_failed")
"""When the event log fails first, every command that was taken is durable and answered: none is in doubt."""


def strace_works():
    if shutil.which("strace") is None:
        return False
    return not subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is not here, or may not trace")


def writer(root, *before, **options):
    words = [*before, sys.executable, "-m", "tests.exchange.disk_rounds", root, str(COUNT)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.stdout.startswith("ready\n"), done.stderr
    return done.stdout.splitlines()[1:]


def begun(root):
    """An engine's directory with a journal of one segment, so that the calls to come are known."""
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    back.journal.close()
    back.events.close()
    return list_segments(paths(root).journal)[0].path


def honest(root, lines, refusals, first=("undecided",)):
    """Nothing is acknowledged after the failure, which is told; all that was is there. Returns how many were."""
    done = [line for line in lines if line.startswith("done")]
    assert lines[: len(done)] == [f"done {seq}" for seq in range(1, len(done) + 1)]
    assert len(done) < COUNT
    declined = lines[len(done) : COUNT]
    assert declined[0].removeprefix("declined ") in first
    assert declined[1:] == ["declined journal_failed"] * (COUNT - len(done) - 1)
    assert re.match(refusals, lines[COUNT]), lines[COUNT]
    assert lines[COUNT + 1] == "told True"
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    back.journal.close()
    back.events.close()
    # The one that was being written may be there; nobody was told that it is not.
    assert len(done) <= back.engine.sequence <= len(done) + 1
    assert check_log(paths(root).journal).bad is None
    return len(done)


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("when", [2, 5])
def test_an_fsync_that_fails_once_is_never_tried_again_though_it_would_succeed(tmp_path, error, when):
    segment, trace = begun(tmp_path), tmp_path / "trace"
    # Only this call fails (calls are counted by thread, and opening syncs in another): the next would prove nothing.
    lines = writer(
        tmp_path, "strace", "-f", "-o", str(trace), "-P", str(segment), "-e", "trace=fsync",
        "-e", f"inject=fsync:error={error}:when={when}",
    )  # fmt: skip
    assert honest(tmp_path, lines, f"failure .*fsync failed: {os.strerror(getattr(errno, error))}") == when - 1
    tried = re.findall(r"fsync\(.*= (\S+)", trace.read_text())
    assert tried == ["0"] * when + ["-1"]


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", [1, 4])
def test_a_write_that_fails_once_ends_it_too(tmp_path, error, when):
    segment, trace = begun(tmp_path), tmp_path / "trace"
    lines = writer(
        tmp_path, "strace", "-f", "-o", str(trace), "-P", str(segment), "-e", "trace=write,fsync",
        "-e", f"inject=write:error={error}:when={when}",
    )  # fmt: skip
    assert honest(tmp_path, lines, f"failure .*append failed: {os.strerror(getattr(errno, error))}") == when - 1
    after = trace.read_text().split(f"-1 {error}")[1]
    assert "write(" not in after
    assert "fsync(" not in after


def test_a_limit_on_the_size_of_files_cuts_a_record_and_nothing_else(tmp_path):
    """As on a full disk, the write takes some bytes first: half a record stays behind, and is cut off at the start."""
    segment = begun(tmp_path)
    size = segment.stat().st_size

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, size + 500))

    lines = writer(tmp_path, preexec_fn=limit, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert 1 <= honest(tmp_path, lines, "failure .*append failed: File too large", EITHER) <= 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_file_system(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        begun(mounted)
        # Nothing is left but what the last pages of the files still hold: some kilobytes each.
        with (mounted / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(1024)):
                pass
        lines = writer(mounted)
        (mounted / "ballast").unlink()
        assert honest(mounted, lines, "failure .*No space left", EITHER) >= 1
    finally:
        subprocess.run(["umount", mounted], check=True)


class PowerFails(OsDisk):
    """Remembers how much of each file was durable when it was last synced."""

    def __init__(self):
        self.durable = {}

    def fsync(self, fd):
        super().fsync(fd)
        self.durable[str(Path(f"/proc/self/fd/{fd}").readlink())] = os.fstat(fd).st_size


@pytest.mark.parametrize("seed", range(8))
def test_after_power_is_lost_all_that_was_synced_is_there(tmp_path, seed):
    """What was not is gone, or is there in part, or is a hole of zeros up to where the file was made longer."""
    chance, disk, synced = stream(seed, "power"), PowerFails(), 0
    with FileLog(tmp_path, segment_bytes=400, disk=disk) as log:
        for _ in range(chance.randrange(1, 30)):
            log.append([bytes(chance.randrange(40)) for _ in range(chance.randrange(1, 4))])
            if chance.random() < 0.5:
                synced = log.sync()
    last = list_segments(tmp_path)[-1].path
    whole, durable = last.read_bytes(), disk.durable[str(last)]
    for kept in range(durable, len(whole) + 1):
        for zeros in (0, len(whole) - kept, 4096):
            last.write_bytes(whole[:kept] + bytes(zeros))
            with FileLog(tmp_path) as log:
                assert log.last_seq >= synced
                log.append([b"after"])
                log.sync()
            assert [record.seq for record in read_records(tmp_path)] == list(range(1, log.last_seq + 1))
