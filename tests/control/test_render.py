from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from control import render
from control.layout import Layout
from control.plan import choose_ports, write_configs
from control.routing import house_routes
from control.settings import load_settings
from control.state_dir import generate_instruments


@pytest.fixture
def rendered(tmp_path):
    settings = load_settings(ports="auto", group_wait_s=0.0)
    layout = Layout(tmp_path)
    layout.secret("webhook").parent.mkdir()
    layout.secret("webhook").write_text("w")
    ports = choose_ports(settings)
    write_configs(settings, layout, ports, generate_instruments(2, 1))
    return layout, ports


def test_only_addresses_credentials_and_intervals_differ_from_the_projects_files(rendered):
    layout, ports = rendered
    config = render.load_yaml(layout.root / "alertmanager" / "alertmanager.yml")
    source = house_routes()
    whole = render.load_yaml(render.ALERTS / "alertmanager.yml")
    assert config["inhibit_rules"] == source["inhibit_rules"] == whole["inhibit_rules"]
    assert [receiver["name"] for receiver in config["receivers"]] == [each["name"] for each in source["receivers"]]
    hook = config["receivers"][0]["webhook_configs"][0]
    assert hook["url"].startswith(f"http://127.0.0.1:{ports.control}/")
    assert hook["http_config"]["authorization"]["credentials_file"] == str(layout.secret("webhook"))
    assert config["route"]["group_wait"] == "0ms"


@pytest.mark.servers
def test_the_real_checkers_take_what_is_rendered(rendered):
    layout, _ = rendered
    render.write_targets(layout.root / "prometheus" / "targets", {"gateway": [("gateway-1", 18800)]})
    for tool, *words, path in (
        ("promtool", "check", "config", layout.root / "prometheus" / "prometheus.yml"),
        ("amtool", "check-config", layout.root / "alertmanager" / "alertmanager.yml"),
    ):
        assert shutil.which(tool), f"{tool} is missing: make setup"
        done = subprocess.run([tool, *words, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_targets_carry_job_and_replica(tmp_path):
    render.write_targets(tmp_path, {"gateway": [("gateway-1", 18800), ("gateway-2", 18801)], "load": []})
    assert json.loads((tmp_path / "load.json").read_text()) == []
    assert json.loads((tmp_path / "gateway.json").read_text())[1] == {
        "targets": ["127.0.0.1:18801"],
        "labels": {"job": "gateway", "replica": "gateway-2"},
    }
