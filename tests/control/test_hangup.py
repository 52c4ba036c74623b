# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""A terminal that goes away stops its estate in order, like Ctrl-C; a program under `nohup` outlives it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from control import estate


@pytest.fixture
def stood_in(monkeypatch):
    """No process runs: what stops the estate is kept, and asked once more while it stops."""
    kept = []

    @contextlib.asynccontextmanager
    async def running(_settings, _say, stop):
        kept.append(stop)
        yield None
        stop.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)

    monkeypatch.setattr(estate, "running", running)
    return kept


@pytest.fixture
def told_of_hangups():
    """Also where the tests themselves run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("told_of_hangups")
async def test_a_hangup_stops_in_order_and_a_second_one_does_not_kill(stood_in):
    said = []
    await asyncio.wait_for(estate.run(None, said.append, lambda _: os.kill(os.getpid(), signal.SIGHUP)), 10)
    assert said == ["stopping in order; once more kills at once", "stopped"]
    assert not stood_in[0].is_set()


async def test_who_was_told_to_ignore_hangups_does(stood_in):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def hang_up_and_stop(_):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)

        await asyncio.wait_for(estate.run(None, lambda _: None, hang_up_and_stop), 10)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("gone", [OSError(5, "Input/output error"), SystemExit(1)])
def test_words_for_a_terminal_that_is_gone_end_nothing(monkeypatch, gone):
    def print_(*_, **__):
        raise gone

    monkeypatch.setattr(cli.out, "print", print_)
    monkeypatch.setattr(cli, "status_of_estate", lambda _: {})
    monkeypatch.setattr(cli, "print_status", print_)
    cli._say("stopped")
    cli._announce(None)


def test_words_into_a_pipe_that_nobody_reads_end_nothing():
    """Such as `tapewatch up | tee up.log`, whose terminal goes away."""
    words = "import cli; cli._say('one'); cli._say('two'); import os; os.write(2, b'on')"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", words],
        cwd=Path(cli.__file__).parent,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b"on"
