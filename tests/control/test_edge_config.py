"""The edge's configuration and certificate, before any program is started."""

from __future__ import annotations

import datetime as dt
import re
import ssl

import pytest
from cryptography import x509

from control.layout import Layout
from control.plan import choose_ports
from control.server_plan import edge_access, own_pages, write_configs
from control.servers import edge, trial_authority
from control.servers.edge import EdgePlace, balancer_of, config_of, find
from control.servers.hosted import load_server_config
from control.servers.hosted_edge import place_of
from control.servers.trial_authority import DAYS, TrialAuthority, not_after
from control.settings import Settings
from kernel.errors import InputError, PermanentError

GATEWAYS = {"gateway-1": 20001, "gateway-2": 20002, "gateway-3": 20003, "gateway-4": 20004}


def place(tmp_path, balancer="haproxy"):
    return EdgePlace(
        balancer=balancer, directory=tmp_path, certificate=tmp_path / "edge.pem", https=20443, stats=20444,
        gateways=GATEWAYS, market_data=20720,
    )  # fmt: skip


def test_haproxy_is_told_of_every_gateway_there_may_be_and_keeps_what_the_shipped_file_says(tmp_path):
    text = config_of(place(tmp_path), tmp_path / "s")
    assert re.findall(r"server (gateway-\d) 127\.0\.0\.1:(\d+)", text) == [(k, str(v)) for k, v in GATEWAYS.items()]
    assert sorted(re.findall(r"bind 127\.0\.0\.1:(\d+)", text)) == ["20443", "20444"]
    assert "mode tcp" not in text, "at layer 4 there is no TLS and no second try"
    assert "retry-on conn-failure empty-response response-timeout 502 503" in text
    assert "/etc/tapewatch" not in text
    assert "/run/tapewatch" not in text


def test_nginx_is_told_of_every_gateway_there_may_be(tmp_path):
    text = config_of(place(tmp_path, "nginx"), tmp_path / "s")
    upstream = text.split("upstream gateways {")[1].split("}")[0]
    assert re.findall(r"server 127\.0\.0\.1:(\d+)", upstream) == [str(port) for port in GATEWAYS.values()]
    assert sorted(set(re.findall(r"listen 127\.0\.0\.1:(\d+)", text))) == ["20443", "20444"]
    assert "server 127.0.0.1:20720" in text
    assert "/etc/tapewatch" not in text
    assert "/var/cache/tapewatch" not in text


def test_a_shipped_file_without_what_is_replaced_is_refused(tmp_path, monkeypatch):
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "haproxy/haproxy.cfg").write_text("global\n# --- layer 4 \n")
    monkeypatch.setattr(edge, "DEPLOY", tmp_path)
    with pytest.raises(PermanentError, match="has no 'server gateway-1'"):
        config_of(place(tmp_path), tmp_path / "s")
    with pytest.raises(PermanentError, match=r"nginx\.conf: cannot be read"):
        config_of(place(tmp_path, "nginx"), tmp_path / "s")


def test_a_balancer_that_is_not_known_or_not_there_is_told(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="'envoy' is not known"):
        balancer_of("envoy")
    with pytest.raises(InputError, match="is no program"):
        find("haproxy", str(tmp_path / "haproxy"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(edge, "_SBIN", str(tmp_path))
    with pytest.raises(PermanentError, match="Debian: nginx"):
        find("nginx")


def test_the_estate_tells_the_edge_of_its_gateways_and_the_load_of_the_edge(tmp_path):
    settings = Settings(state=tmp_path, estate="distributed", ports="auto", services=("edge",))
    layout, ports = Layout(tmp_path), choose_ports(settings)
    write_configs(settings, layout, ports)
    told = load_server_config(layout.config("edge-1"))
    made = place_of(told, layout.edge / "edge.pem")
    assert tuple(made.gateways.values()) == ports.gateways
    assert (made.https, made.stats) == (ports.servers["edge-1/https"], ports.servers["edge-1/stats"])
    access = edge_access(settings, layout, ports, "load")
    assert access is not None
    assert access.url == f"https://127.0.0.1:{made.https}"
    assert access.ca_file == str(layout.edge / "ca.pem")
    assert edge_access(settings, layout, ports, "gateway") is None
    assert own_pages(settings, ports) == {"edge-server": [("edge-1", made.stats)]}
    assert own_pages(settings.model_copy(update={"edge": "nginx"}), ports) == {}
    embedded = Settings(state=tmp_path, ports="auto")
    assert edge_access(embedded, layout, choose_ports(embedded), "load") is None


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_is_made_once_and_vouches_for_this_machine(tmp_path):
    authority = TrialAuthority(tmp_path)
    authority.prepare()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    TrialAuthority(tmp_path).prepare()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "ca.pem": 0o644, "ca-key.pem": 0o600, "edge.pem": 0o600,
    }  # fmt: skip
    certificate(authority.edge).verify_directly_issued_by(certificate(authority.certificate))
    ssl.create_default_context(cafile=str(authority.certificate))


def test_what_is_about_to_end_is_made_anew_by_the_same_authority(tmp_path):
    authority = TrialAuthority(tmp_path)
    authority.prepare()
    root = authority.certificate.read_bytes()
    authority.edge.write_bytes(authority.issue(dt.timedelta(days=trial_authority.RENEW_DAYS - 1)))
    authority.prepare()
    left = certificate(authority.edge).not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert left > dt.timedelta(days=DAYS - 1)
    assert authority.certificate.read_bytes() == root


def test_a_certificate_of_somebody_else_is_left_alone_even_when_it_has_ended(tmp_path):
    other = TrialAuthority(tmp_path / "other")
    other.prepare()
    mine = TrialAuthority(tmp_path / "mine")
    mine.prepare()
    theirs = other.issue(dt.timedelta(seconds=-60))
    mine.edge.write_bytes(theirs)
    (tmp_path / "mine/ca.pem").write_bytes(other.certificate.read_bytes())
    (tmp_path / "mine/ca-key.pem").unlink()
    mine.prepare()
    assert mine.edge.read_bytes() == theirs
    with pytest.raises(PermanentError, match="the authority's key cannot be read"):
        mine.issue(dt.timedelta(days=1))


@pytest.mark.parametrize("junk", [b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_certificate_is_named_with_its_file(tmp_path, junk):
    authority = TrialAuthority(tmp_path)
    authority.prepare()
    authority.edge.write_bytes(junk)
    with pytest.raises(PermanentError, match=r"edge\.pem: the certificate cannot be read"):
        authority.prepare()
    with pytest.raises(ValueError, match=r".+"):
        not_after(junk)
