"""A pytest plugin that takes one rail away: the tests that run under it should notice."""

import os

import runbooks.policy

NAME = os.environ.get("WITHOUT_GUARD", "")


def pytest_configure():
    if NAME:
        assert hasattr(runbooks.policy, NAME), f"there is no rail {NAME}"
        setattr(runbooks.policy, NAME, lambda *_, **__: None)
