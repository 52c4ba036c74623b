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
from control.servers import edge
from control.servers.edge import EdgePlace, balancer_of, config_of, find
from control.servers.edge_certificate import AGAIN_S, Certificates
from control.servers.hosted import load_server_config
from control.servers.hosted_edge import place_of
from control.servers.trial_authority import DAYS, TrialAuthority, not_after, pair_ends
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
    made = place_of(told)
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
    authority.edge.write_bytes(authority.issue(dt.timedelta(minutes=2)))  # it counts from five minutes ago: 2 of 7
    assert not authority.is_due(0.25)
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


class Taking:
    """A balancer that takes what it is not told to refuse, and keeps what it was shown."""

    def __init__(self):
        self.seen, self.refuses, self.fails, self.meanwhile = [], "", None, lambda: None

    def refusal(self, pem):
        return self.refuses

    def show(self, pem):
        if self.fails:
            raise self.fails
        self.seen.append(pem)
        self.meanwhile()


class Told:
    """A log that keeps what it was told."""

    def __init__(self):
        self.events = []

    def event(self, name, /, *, severity="info", **fields):
        self.events.append((name, severity, fields.get("why")))


@pytest.fixture
def renewal(tmp_path):
    """Return the certificates of a state, its authority, a balancer, a log, and the clock by which is waited."""
    authority, balancer, log, clock = TrialAuthority(tmp_path / "edge"), Taking(), Told(), [100.0]
    (tmp_path / "edge-1").mkdir()
    made = Certificates(authority, tmp_path / "edge-1", balancer, 1 / 3, lambda: clock[0])
    made.log_to(log)
    made.prepare()
    return made, authority, balancer, log, clock


def ages(authority, made):
    """Let what is shown be one of ours that ends in a minute."""
    authority.edge.write_bytes(authority.issue(dt.timedelta(minutes=1)))
    made.shown.write_bytes(authority.edge.read_bytes())


def test_ours_is_renewed_while_the_edge_runs_once_a_third_of_its_life_is_left(renewal):
    made, authority, balancer, log, _ = renewal
    made.turn()
    assert balancer.seen == [], "a new one has its whole life before it"
    ages(authority, made)
    made.turn()
    (new,) = balancer.seen
    assert new == authority.edge.read_bytes() == made.shown.read_bytes(), "a restart begins with it"
    assert pair_ends(new)[1] > dt.datetime.now(dt.UTC).timestamp() + (DAYS - 1) * 86_400
    made.turn()
    assert len(balancer.seen) == 1
    assert (made.taken, made.why) == ({"shown": 1, "refused": 0}, "")
    assert log.events == [("certificate-shown", "info", None)]


def test_what_the_balancer_does_not_take_leaves_the_one_before_and_is_tried_again_after_a_minute(renewal):
    made, authority, balancer, log, clock = renewal
    ages(authority, made)
    kept = made.shown.read_bytes()
    balancer.fails = PermanentError("haproxy shows another certificate")
    for _ in range(3):
        made.turn()
    assert made.shown.read_bytes() == authority.edge.read_bytes() == kept
    assert made.taken == {"shown": 0, "refused": 1}
    assert made.why == "haproxy shows another certificate"
    assert log.events == [("certificate-refused", "error", made.why)]
    balancer.fails, clock[0] = None, clock[0] + AGAIN_S
    made.turn()
    assert (len(balancer.seen), made.why) == (1, "")


def test_what_somebody_puts_there_is_shown_once_it_lay_still_for_a_look(renewal, tmp_path):
    made, authority, balancer, _, _ = renewal
    other = TrialAuthority(tmp_path / "other")
    other.prepare()
    theirs = other.edge.read_bytes()
    authority.edge.write_bytes(theirs[:100])
    made.turn()
    authority.edge.write_bytes(theirs)
    made.turn()
    assert (balancer.seen, made.why) == ([], ""), "it is being written"
    made.turn()
    assert balancer.seen == [theirs]
    assert made.shown.read_bytes() == theirs
    with pytest.raises(PermanentError, match="another authority issued it"):
        made.renew()


@pytest.mark.parametrize("bad", [b"", b"junk", None])
def test_a_bad_file_is_told_and_left_where_it_is_and_a_restart_begins_with_the_one_before(renewal, bad):
    made, authority, balancer, log, _ = renewal
    kept = made.shown.read_bytes()
    authority.edge.write_bytes(authority.issue(dt.timedelta(seconds=-1)) if bad is None else bad)
    for _ in range(4):
        made.turn()
    assert made.why in {"there is no certificate in it", "it has ended"}
    assert (balancer.seen, made.shown.read_bytes(), made.taken["refused"]) == ([], kept, 1)
    with pytest.raises(PermanentError, match="the one before is shown on"):
        made.renew()
    balancer.refuses = "haproxy: unable to load"
    made.prepare()
    assert made.shown.read_bytes() == kept
    assert all(severity == "error" for _, severity, _ in log.events)


def test_a_state_without_one_that_could_be_shown_does_not_begin(tmp_path):
    balancer = Taking()
    balancer.refuses = "haproxy: unable to load"
    with pytest.raises(PermanentError, match=r"edge\.pem: haproxy: unable to load"):
        Certificates(TrialAuthority(tmp_path), tmp_path, balancer, 1 / 3).prepare()


def test_a_person_has_a_new_one_issued_though_none_is_due(renewal):
    made, _, balancer, _, _ = renewal
    told = made.renew()
    assert told["issued"] is True
    assert told["serial"] == pair_ends(balancer.seen[0])[0]


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_somebody_puts_there_while_ours_is_made_is_not_written_over(renewal, tmp_path, by_hand):
    made, authority, balancer, _, _ = renewal
    other = TrialAuthority(tmp_path / "other")
    other.prepare()
    theirs = other.edge.read_bytes()
    ages(authority, made)
    balancer.meanwhile = lambda: authority.edge.write_bytes(theirs)
    (made.renew if by_hand else made.turn)()
    assert authority.edge.read_bytes() == theirs
    balancer.meanwhile = lambda: None
    made.turn()
    made.turn()
    assert balancer.seen[1:] == [theirs]
    assert made.shown.read_bytes() == theirs


def test_what_grows_while_it_is_shown_is_shown_whole_next(renewal, tmp_path):
    made, authority, balancer, _, _ = renewal
    other = TrialAuthority(tmp_path / "other")
    other.prepare()
    theirs = other.edge.read_bytes()
    whole = theirs + other.certificate.read_bytes()
    authority.edge.write_bytes(theirs)
    balancer.meanwhile = lambda: authority.edge.write_bytes(whole)
    for _ in range(4):
        made.turn()
    assert balancer.seen == [theirs, whole]
    assert authority.edge.read_bytes() == made.shown.read_bytes() == whole


def test_a_restart_does_not_begin_with_one_that_has_ended_while_the_one_before_lasts(renewal, tmp_path):
    made, authority, balancer, _, _ = renewal
    kept, other = made.shown.read_bytes(), TrialAuthority(tmp_path / "other")
    other.prepare()
    theirs = other.issue(dt.timedelta(seconds=-1))
    authority.edge.write_bytes(theirs)
    for look in (made.turn, made.turn, made.prepare):
        look()
        assert (balancer.seen, made.shown.read_bytes()) == ([], kept)
    assert made.why == "it has ended"
    made.shown.write_bytes(other.issue(dt.timedelta(seconds=-1)))
    made.prepare()
    assert made.shown.read_bytes() == theirs, "there is no better one: the edge starts, and its alert tells"
