# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The engine against one that is obvious and slow. Any difference is a bug in one of the two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.exchange.compared import agree, hashes
from tests.exchange.random_commands import PROFILES

BY_NAME = {profile.name: profile for profile in PROFILES}
PROFILE = pytest.mark.parametrize("name", BY_NAME)


# Hypothesis picks seed and length; a script of its own making would spend its time on drawing, not on matching.
@PROFILE
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64), steps=st.integers(1, 80))
def test_short_scripts_agree_with_the_naive_engine(name, seed, steps):
    agree(BY_NAME[name], seed, steps)


@PROFILE
@pytest.mark.parametrize("seed", range(5))
def test_long_scripts_agree_with_the_naive_engine(name, seed):
    """35 scripts of 2,000 steps: 70,000 commands in the default run."""
    agree(BY_NAME[name], seed, 2_000)


@pytest.mark.long
@PROFILE
@pytest.mark.parametrize("seed", range(1_000, 1_042))
def test_a_million_steps_agree_with_the_naive_engine(name, seed):
    agree(BY_NAME[name], seed + int(os.environ.get("TAPEWATCH_SEED", "0")), 4_000)


@PROFILE
@pytest.mark.parametrize("seed", range(2))
def test_an_engine_that_is_frozen_and_thawed_at_any_step_goes_on_the_same(name, seed):
    agree(BY_NAME[name], seed, 600, thaws=0.2)


@PROFILE
def test_every_prefix_has_the_same_hash_when_it_is_replayed_under_another_hash_seed(name):
    here = hashes(BY_NAME[name], 3, 300)
    code = (
        "import sys; from tests.exchange.compared import hashes; from tests.exchange.random_commands import PROFILES\n"
        "profile = next(one for one in PROFILES if one.name == sys.argv[1])\n"
        "print(*hashes(profile, 3, 300), sep='\\n')"
    )
    for hash_seed in ("1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", code, name], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.split() == here
    assert len(set(here)) == len(here)
