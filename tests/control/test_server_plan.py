"""What a distributed estate is made of: every service has its ports, its configuration and its place in the order."""

import os
from pathlib import Path

import pytest

from control import distributed, doctor, plan, server_plan
from control.layout import Layout
from control.servers.catalogue import BY_NAME, SERVICES, port_names
from control.servers.hosted import load_server_config
from control.settings import Settings, load_settings
from control.state_dir import StateDir
from kernel.errors import InputError


@pytest.fixture
def laid(tmp_path):
    settings = Settings(state=tmp_path / "up", ports="auto", estate="distributed")
    state = StateDir(settings.state)
    listing = state.fill(symbols=2, seed=1)
    ports = plan.choose_ports(settings)
    settings = server_plan.completed(settings, state.layout, ports)
    plan.write_configs(settings, state.layout, ports, listing.instruments, listing.venue)
    yield settings, state.layout, ports
    state.release()


def test_every_port_has_one_name_and_every_name_one_port(laid):
    names = list(port_names())
    assert len(set(names)) == len(names)
    _, _, ports = laid
    assert set(ports.servers) == set(names)
    assert len(set(ports.named().values())) == len(ports.named())


def test_every_service_starts_before_the_engine_and_stops_behind_it():
    for one in SERVICES:
        if one.name == "edge":  # what stands before the gateways comes after them
            continue
        starts, stops = ([name for group in order for name in group]
                         for order in (distributed.START_ORDER, distributed.STOP_ORDER))  # fmt: skip
        assert starts.index(one.name) < starts.index("engine")
        assert stops.index(one.name) > stops.index("engine")


def test_every_replica_of_a_service_is_told_the_ports_of_all(laid):
    settings, layout, ports = laid
    for service in server_plan.services(settings):
        for replica in service.ids:
            config = load_server_config(layout.config(replica))
            assert set(config.ports) == set(service.ids)
            assert config.port == ports.servers[f"{replica}/host"]


def test_the_ledgers_address_names_both_databases_and_no_configuration_holds_the_password(laid):
    settings, layout, ports = laid
    words = [layout.secret(name).read_text() for name in ("postgres", "postgres-roles")]
    assert layout.secret("postgres-roles").stat().st_mode & 0o777 == 0o600
    for replica in BY_NAME["postgres"].ids:
        assert f"host=127.0.0.1:{ports.servers[f'{replica}/server']}" in settings.ledger_url
    assert not [path for path in (layout.root / "config").iterdir() if any(word in path.read_text() for word in words)]


def test_a_database_of_ones_own_is_used_instead(tmp_path):
    settings = Settings(state=tmp_path / "up", ports="auto", estate="distributed", ledger_url="sqlite:////tmp/x")
    state = StateDir(settings.state)
    found = server_plan.completed(settings, state.layout, plan.choose_ports(settings))
    state.release()
    assert found.ledger_url == "sqlite:////tmp/x"


def test_control_does_not_keep_its_memory_on_the_servers_that_it_mends(laid):
    settings, _, _ = laid
    assert settings.store_url == ""
    assert settings.ledger_url


def test_an_embedded_estate_has_no_services(tmp_path):
    settings = Settings(state=tmp_path / "up", ports="auto")
    assert server_plan.services(settings) == ()
    assert plan.choose_ports(settings).servers == {}
    assert server_plan.completed(settings, Layout(tmp_path), plan.choose_ports(settings)) is settings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's database runs as somebody else")
def test_data_lie_where_the_user_of_the_database_reaches_them(tmp_path):
    open_to_all = Path("/var/tmp") / f"tapewatch-test-{os.getpid()}"
    assert server_plan.home(Layout(open_to_all)) == open_to_all / "servers"
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    elsewhere = server_plan.home(Layout(closed))
    assert elsewhere.parent == Path("/var/tmp")
    assert elsewhere == server_plan.home(Layout(closed))
    assert elsewhere != server_plan.home(Layout(closed / "other"))


def test_a_distributed_estate_on_kubernetes_is_refused(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_ON", "kubernetes")
    with pytest.raises(InputError, match="leave out --on kubernetes"):
        load_settings(estate="distributed")


def test_doctor_names_a_missing_service_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr("control.servers.postgres.DEBIAN", tmp_path)
    checks = {one.name: one for one in doctor.examine(Settings(ports="auto", estate="distributed"))}
    assert {service.name for service in SERVICES} <= set(checks)
    for name, version, size in (("kafka", "4.0 or newer", "60 MB"), ("zipkin", "3.6.1", "90 MB")):
        assert (checks[name].ok, version in checks[name].get, size in checks[name].get) == (False, True, True), name
    assert checks["postgres"].found == "not there"
    assert "apt-get install --no-install-recommends postgresql" in checks["postgres"].get
    assert "name one with TAPEWATCH_POSTGRES (14 or newer" in checks["postgres"].get
    assert "tapewatch servers build zipkin" in checks["zipkin"].get
    assert "MB available" in checks["memory"].found
    assert not {"kafka", "memory"} & {one.name for one in doctor.examine(Settings(ports="auto"))}


def test_doctor_tells_the_version_of_each_server_that_is_there_and_of_one_that_is_too_old(tmp_path, monkeypatch):
    program(tmp_path / "haproxy", "echo 'HAProxy version 2.8.3-1 2023/09/07'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    kafka = tmp_path / "kafka-home"
    (kafka / "libs").mkdir(parents=True)
    (kafka / "libs" / "kafka_2.13-4.1.0.jar").touch()
    given = Settings(ports="auto", estate="distributed", services=("kafka", "edge"), kafka_home=str(kafka))
    checks = {one.name: one for one in doctor.examine(given)}
    assert checks["kafka"].found == f"4.1.0: {kafka}"
    assert checks["edge"].found == f"2.8.3: {tmp_path / 'haproxy'}"
    assert "postgres" not in checks, "it is not asked for"
    (kafka / "libs" / "kafka_2.13-4.1.0.jar").rename(kafka / "libs" / "kafka_2.13-3.9.1.jar")
    old = next(one for one in doctor.examine(given) if one.name == "kafka")
    assert (old.ok, "but 3.9.1" in old.found) == (False, True)


def program(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
