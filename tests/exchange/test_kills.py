"""SIGKILL under load: whatever was acknowledged is there, once, and whatever was not is there once or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(directory: Path, rounds: int, seed: int, *planted: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.exchange.kill_rounds", str(directory), str(rounds), str(seed), *planted]
    root = Path(__file__).parents[2]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=3_600, check=False)


def killed(directory: Path, rounds: int, seed: int) -> dict[str, int]:
    done = run(directory, rounds, seed)
    assert done.returncode == 0, done.stderr
    account: dict[str, int] = json.loads(done.stdout)
    return account


def broken(account: dict[str, int]) -> dict[str, int]:
    return {name: account[name] for name in ("lost", "twice", "other_state", "events_differ", "damaged")}


NOTHING = {"lost": 0, "twice": 0, "other_state": 0, "events_differ": 0, "damaged": 0}


def test_a_handful_of_kills_loses_nothing_and_does_nothing_twice(tmp_path):
    account = killed(tmp_path, 12, 1)
    assert broken(account) == NOTHING
    assert account["killed"] == 12
    assert account["acknowledged"] > 20
    assert account["in_journal"] >= account["acknowledged"]


@pytest.mark.parametrize("bug", ["answer-early", "forget"])
def test_the_account_tells_a_writer_that_answers_early_or_forgets(tmp_path, bug):
    done = run(tmp_path, 12, 1, bug)
    # A snapshot of what was never written stops the next start: that is noticed without any account.
    assert "records are missing" in done.stderr or broken(json.loads(done.stdout)) != NOTHING, done.stderr


@pytest.mark.long
def test_a_thousand_kills_lose_nothing_and_do_nothing_twice(tmp_path):
    account = killed(tmp_path, 1_000, 2)
    sys.stdout.write(f"{account}\n")
    assert broken(account) == NOTHING
    assert account["killed"] == 1_000
    assert account["acknowledged"] > 20_000
    assert account["resent"] > 0
    assert account["compacted"] > 0
