from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from control import preflight
from kernel.errors import InputError, PermanentError

pytestmark = pytest.mark.servers
PROGRAM = Path("/nowhere/bin/program")
"""Nothing lies beside it, so the checkers are looked for on PATH."""
RULES = """groups:
- name: g
  rules:
  - alert: Down
    expr: {expr}
    for: {wait}
"""
PROMETHEUS = "rule_files: [{rules}]\n{more}"
ALERTMANAGER = "route:\n  receiver: {receiver}\nreceivers:\n- name: control\n"


def prometheus(tmp_path: Path, *, expr: str = "up == 0", wait: str = "3s", more: str = "") -> Path:
    assert shutil.which("promtool"), "promtool is missing: make setup"
    (tmp_path / "rules.yml").write_text(RULES.format(expr=expr, wait=wait))
    (tmp_path / "prometheus.yml").write_text(PROMETHEUS.format(rules=tmp_path / "rules.yml", more=more))
    return tmp_path / "prometheus.yml"


def test_good_files_pass(tmp_path):
    preflight.check_prometheus(PROGRAM, prometheus(tmp_path))
    (tmp_path / "alertmanager.yml").write_text(ALERTMANAGER.format(receiver="control"))
    preflight.check_alertmanager(PROGRAM, tmp_path / "alertmanager.yml")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"expr": "sum(rate("}, r'rules\.yml:5:11: group "g", rule 1, "Down": could not parse expression'),
        ({"wait": "nonsense"}, r"rules\.yml:6: not a valid duration string"),
        ({"expr": "["}, r"rules\.yml:\d+: yaml"),
        ({"more": "nonsense: 3"}, r"prometheus\.yml:2: yaml: unmarshal errors: line 2: field nonsense not found"),
        ({"more": "scrape_configs: 3"}, r"prometheus\.yml:2: "),
    ],
)
def test_a_broken_rule_or_setting_of_prometheus_is_named_with_its_line(tmp_path, changes, told):
    with pytest.raises(InputError, match=told) as error:
        preflight.check_prometheus(PROGRAM, prometheus(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_route_to_nobody_is_named_with_its_line(tmp_path):
    (tmp_path / "alertmanager.yml").write_text(ALERTMANAGER.format(receiver="nobody"))
    with pytest.raises(InputError, match=r'alertmanager\.yml:2: undefined receiver "nobody".*correct that') as error:
        preflight.check_alertmanager(PROGRAM, tmp_path / "alertmanager.yml")
    assert "\n" not in str(error.value)


def test_a_missing_program_is_named_with_its_setting():
    with pytest.raises(PermanentError, match=r"no program /nowhere/prometheus \(setting prometheus\); `tapewatch doc"):
        preflight.find("/nowhere/prometheus", "prometheus")


def test_without_a_checker_the_look_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "prometheus.yml").write_text("nonsense")
    preflight.check_prometheus(PROGRAM, tmp_path / "prometheus.yml")
