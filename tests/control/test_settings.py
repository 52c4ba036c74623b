from __future__ import annotations

import pytest

from control.config import ControlTuning
from control.settings import load_settings
from kernel.errors import InputError
from runbooks.adapters.yaml_library import LIBRARY, load_library


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("TAPEWATCH_PROMETHEUS", "TAPEWATCH_ALERTMANAGER"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_need_nothing():
    settings = load_settings()
    assert (settings.gateways, settings.port_control, settings.state.as_posix()) == (2, 18700, ".tapewatch/up")


def test_the_environment_beats_the_file_and_the_command_line_beats_both(monkeypatch, tmp_path):
    (tmp_path / "tapewatch.toml").write_text("gateways = 1\nsymbols = 3\nseed = 9\n")
    monkeypatch.setenv("TAPEWATCH_SYMBOLS", "4")
    settings = load_settings(seed=7, state=None)
    assert (settings.gateways, settings.symbols, settings.seed) == (1, 4, 7)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TAPEWATCH_GATEWAYS", "many", r"TAPEWATCH_GATEWAYS.*'many' is wrong; it should be a valid integer"),
        ("TAPEWATCH_GATEWAYS", "11", r"TAPEWATCH_GATEWAYS.*'11' is wrong; it should be less than or equal to 10"),
        ("TAPEWATCH_PORTS", "any", r"TAPEWATCH_PORTS.*'any' is wrong; it should be 'fixed' or 'auto'"),
        ("TAPEWATCH_GATEWAY", "2", r"TAPEWATCH_GATEWAY=2: is not a setting; did you mean gateways"),
        ("TAPEWATCH_PORT_LOAD", "18700", r"port 18700 is given twice"),
        ("TAPEWATCH_GATEWAYS_MAX", "1", r"gateways is 2, which is more than gateways_max \(1\)"),
        ("TAPEWATCH_ALLOWED_TARGETS", "gateway", r"allowed_targets.*write lists as JSON"),
        ("TAPEWATCH_RETENTION", "forever", r"TAPEWATCH_RETENTION.*'forever' is wrong"),
    ],
)
def test_a_wrong_setting_names_key_value_and_what_is_allowed(monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=told) as error:
        load_settings()
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_named(tmp_path):
    (tmp_path / "tapewatch.toml").write_text("gatways = 1\n")
    with pytest.raises(InputError, match=r"tapewatch.toml: gatways: is not a setting; did you mean gateways"):
        load_settings()
    (tmp_path / "tapewatch.toml").write_text("gateways = \n")
    with pytest.raises(InputError, match=r"tapewatch.toml: is not TOML"):
        load_settings()
    (tmp_path / "tapewatch.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"tapewatch.toml: is not UTF-8: byte 0 is wrong"):
        load_settings()


def test_a_load_cannot_follow_phases_that_no_calendar_tells(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_LOAD_BY_PHASE", "true")
    with pytest.raises(InputError, match="load_by_phase is true, but there is no calendar"):
        load_settings()


def test_phases_cannot_be_turned_by_a_calendar_that_is_not_there(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_PHASES_BY_CALENDAR", "true")
    with pytest.raises(InputError, match="phases_by_calendar is true, but there is no calendar"):
        load_settings()


def test_what_the_shipped_runbooks_touch_of_an_estate_they_may_touch_by_default():
    """Else the alert fires, its runbook is refused, and a person is called for what a restart would mend."""
    runbooks, _ = load_library(LIBRARY)
    touched = {
        step.action.workload
        for runbook in runbooks
        if "local" in runbook.platforms
        for step in runbook.steps
        if hasattr(step.action, "workload") and "{" not in step.action.workload
    }
    assert {"gateway", "mirror", "kafka"} <= touched
    assert touched <= set(load_settings().allowed_targets)
    assert set(load_settings().allowed_targets) == set(ControlTuning().allowed), "control and the estate go by the same"
