"""The organisation's files: what is refused and where, which channels are live, and what becomes of it."""

import functools
import shutil
import subprocess

import pytest
import yaml

from control import routing, silences
from control.settings import load_settings
from exchange.calendar import PhaseName
from kernel.errors import InputError
from kernel.time import from_rfc3339
from monitor.routing.config import config_of
from monitor.routing.model import BRIDGED, Kind, Tier, UnheardError, Version
from monitor.routing.reading import RoutingError, check_alerts
from monitor.routing.receivers import INLINE
from monitor.routing.walk import hits_of, silent_by
from tests.control.test_cli import run

RULES = routing.rule_labels()
MUTES = """
mutes:
  - {alert: SymbolFeedStale, phases: [closed, pre_open], reason: Nothing is published then.}
  - {alert: FeedStalled, phases: [closed, pre_open], reason: Nothing is published then.}
  - {alert: GatewayOvercapacity, phases: [closed], reason: An idle gateway is as it should be.}
  - {alert: EngineDown, phases: [closed], reason: For the test alone.}
"""
CALENDAR = """
zone: Europe/Berlin
sessions:
  regular:
    - {phase: pre_open, from: "08:00"}
    - {phase: continuous, from: "09:00"}
    - {phase: closed, from: "17:30"}
week: {monday: regular, tuesday: regular, wednesday: regular, thursday: regular, friday: regular}
holidays: ["2026-12-25"]
"""


@functools.cache
def house():
    return routing.load_organisation()


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(routing.HOUSE, tmp_path / "routing")
    return tmp_path / "routing"


def put(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    changed = text.replace(old, new, 1)
    (folder / name).write_text(changed)
    return next(n for n, (a, b) in enumerate(zip(text.split("\n"), changed.split("\n"), strict=False), 1) if a != b)


# --- what is refused ---

WRONG = [
    # a route that reaches nobody
    ("teams.yaml", "level_3: [chat, tickets, mail]", "level_3: []", "write at least 1"),
    ("teams.yaml", "    level_1: [call, sms, pager, chat, war-room]\n", "", "level_1 is missing"),
    # a channel that nobody defined
    ("teams.yaml", "[pager, chat]", "[pagr, chat]", "nobody defined the channel pagr; did you mean pager?"),
    ("channels.yaml", "heartbeat: heartbeat", "heartbeat: hartbeat", "did you mean heartbeat?"),
    ("channels.yaml", "heartbeat: heartbeat", "heartbeat: chat", "chat is no webhook"),
    # a duplicate
    ("channels.yaml", "  teams: {kind: teams", "  chat: {kind: teams", "chat"),
    ("channels.yaml", "secret: discord-url", "secret: slack-url", "slack-url is the secret of chat, too"),
    ("people.yaml", "name: watchers", "name: for-people", "for-people stands here twice"),
    ("teams.yaml", "[pager, chat]", "[pager, pager]", "keep each once"),
    # a receiver without credentials, or with what it does not take
    ("channels.yaml", "{kind: pagerduty, secret: pagerduty-key}", "{kind: pagerduty}", "pagerduty needs credentials"),
    ("channels.yaml", "{kind: sms}", "{kind: sms, secret: s}", "sms goes by the bridge"),
    ("channels.yaml", "secret: slack-url,", "secret: ../slack-url,", "the name of a file, without a path"),
    ("channels.yaml", "{room: ", "{rom: ", "needs the setting room"),
    ("channels.yaml", 'chat_id: "-1001"', 'chat_id: "me"', "me is no chat id"),
    ("channels.yaml", "kind: jsm", "kind: jms", "one of slack, teams"),
    ("channels.yaml", "https://hooks.example.com", "hooks.example.com", "is no address"),
    # the rest
    ("teams.yaml", "hours: office", "hours: offices", "did you mean office?"),
    ("teams.yaml", "default_team: platform", "default_team: plattform", "did you mean platform-operations?"),
    ("hours.yaml", "Europe/Berlin", "Europe/Berlim", "did you mean Europe/Berlin?"),
    ("hours.yaml", 'to: "19:00"', 'to: "07:00"', "is not later than 07:00"),
    ("hours.yaml", 'to: "19:00"', 'to: "25:00"', "a time of day"),
    ("hours.yaml", "friday]", "freitag]", "one of monday"),
    ("people.yaml", "Person}\n    control_too: false", "Person}\n    control_too: true", "would come back to control"),
    ("people.yaml", "control|monitoring", "control(", "no regular expression"),
    ("people.yaml", "audience: people", "audience: 'a\"b'", "without quotes"),
    ("inhibitions.yaml", '".+Down"', '"+Down"', "is no regular expression"),
    ("inhibitions.yaml", "why: One feed, hundreds of symbols.", "wy: x", "wy is not known here"),
    ("phase_mutes.yaml", "alert: FeedStalled", "alert: SymbolFeedStale", "SymbolFeedStale stands here twice"),
    ("phase_mutes.yaml", "alert: FeedStalled", "alert: Watchdog", "must be heard at any time"),
    ("phase_mutes.yaml", "[closed]", "[closd]", "one of pre_open"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "right"), WRONG, ids=[f"{row[0]}: {row[3]}" for row in WRONG])
def test_a_wrong_file_is_refused_with_its_name_its_line_and_what_would_be_right(folder, name, old, new, right):
    (folder / "phase_mutes.yaml").write_text(MUTES)
    line = put(folder, name, old, new)
    with pytest.raises(InputError) as refused:
        routing.load_organisation(folder)
    where, _, rest = str(refused.value).partition(": ")
    assert right in rest
    path, told, _ = where.rsplit(":", 2)
    assert path == str(folder / name)
    # What is missing, or lies elsewhere in a block, is told at its block.
    assert abs(int(told) - line) <= 4, f"told {told}, changed {line}"


def test_a_missing_file_is_named(folder):
    (folder / "teams.yaml").unlink()
    with pytest.raises(InputError, match=r"teams\.yaml: is missing"):
        routing.load_organisation(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "right"),
    [
        (
            "inhibitions.yaml",
            "source: [EngineDown]",
            "source: [EngineDwn]",
            "EngineDwn is no alert; did you mean Engine",
        ),
        ("phase_mutes.yaml", "alert: FeedStalled", "alert: FeedStaled", "FeedStaled is no alert; did you mean Feed"),
    ],
)
def test_an_inhibition_or_a_mute_of_an_alert_that_no_rule_has_is_refused(folder, name, old, new, right):
    (folder / "phase_mutes.yaml").write_text(MUTES)
    line = put(folder, name, old, new)
    with pytest.raises(RoutingError) as refused:
        check_alerts(routing.load_organisation(folder), RULES)
    told = str(routing.located(refused.value, routing.sources_of(folder)))
    assert told.startswith(f"{folder / name}:{line}:")
    assert right in told


def test_the_houses_own_files_name_only_alerts_that_exist():
    check_alerts(house(), RULES)


# --- what is live ---


def secrets(tmp_path, *names):
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    for name in names:
        (folder / name).touch(mode=0o600)
        (folder / name).write_text("https://hooks.example.com/secret\n")
    return folder


def test_nothing_is_live_until_a_directory_of_credentials_is_named():
    live, absent = routing.live_channels(house(), Version.OLD, None, None)
    assert live == {}
    assert {one.channel for one in absent} == set(house().channels)
    assert all(one.why for one in absent)


def test_a_channel_is_live_when_its_file_is_there_and_the_others_say_what_they_lack(tmp_path):
    folder = secrets(tmp_path, "pagerduty-key", "opsgenie-key", "discord-url")
    live, absent = routing.live_channels(house(), Version.OLD, folder, None)
    assert set(live) == {"pager", "opsgenie", "discord"}
    assert live["pager"].path == str(folder / "pagerduty-key")
    assert live["pager"].text == "", "0.25 reads the file itself"
    assert live["discord"].text == "https://hooks.example.com/secret"
    whys = {one.channel: one.why for one in absent}
    assert whys["chat"] == f"there is no file {folder / 'slack-url'}"
    assert "bridge" in whys["sms"]
    assert "jira" in whys["tickets"]
    assert "secret" not in repr(live)


def test_channels_that_leave_a_team_without_level_1_are_refused(tmp_path):
    folder = secrets(tmp_path, "pagerduty-key")
    with pytest.raises(UnheardError, match=r"team settlement-operations: would hear of no alert of level 1.*opsgenie"):
        routing.live_channels(house(), Version.OLD, folder, None)


def test_the_heartbeat_alone_is_no_way_to_people(tmp_path):
    live, _ = routing.live_channels(house(), Version.OLD, secrets(tmp_path, "heartbeat-token"), None)
    assert set(live) == {"heartbeat"}
    made = config_of(house(), place(live), RULES).data
    assert [hit.receiver for hit in hits_of(made, {"alertname": "Watchdog"})] == ["heartbeat", "control"]
    assert [hit.receiver for hit in hits_of(made, {"alertname": "IncidentNeedsPerson"})] == ["on-call"]


@pytest.mark.parametrize(("what", "mode"), [("slack-url", 0o644), ("slack-url", 0o640), ("", 0o755)])
def test_credentials_that_others_may_read_are_refused(tmp_path, what, mode):
    folder = secrets(tmp_path, "slack-url", "opsgenie-key")
    (folder / what).chmod(mode)
    with pytest.raises(InputError, match=r"open to others.*chmod"):
        routing.live_channels(house(), Version.OLD, folder, None)


@pytest.mark.parametrize("text", ["", " \n", "two words", "x" * 5000])
def test_a_file_that_holds_no_secret_is_refused(tmp_path, text):
    folder = secrets(tmp_path, "slack-url")
    (folder / "slack-url").write_text(text)
    with pytest.raises(InputError, match="does not hold a secret"):
        routing.live_channels(house(), Version.OLD, folder, None)


def test_what_the_bridge_serves_is_what_the_bridge_speaks():
    from incidents.paging.channels import CHANNELS

    assert {str(kind) for version in Version for kind in BRIDGED[version]} <= set(CHANNELS)


# --- what is made of it ---


def place(live, calendar=None, version=Version.OLD):
    import msgspec

    made = routing.place_of(version, live, control=1, bridge=2, token=routing.Path("/t"))
    return msgspec.structs.replace(made, calendar=calendar)


def whole(version, calendar=None):
    config = yaml.safe_load(routing.reference(version))
    assert calendar is None
    return config


def test_every_kind_of_channel_has_its_receiver_in_both_versions():
    made = {version: whole(version) for version in Version}
    kinds = {
        version: {key for one in config["receivers"] for key in one if key != "name"}
        for version, config in made.items()
    }
    assert kinds[Version.OLD] == {
        f"{one}_configs" for one in ("slack", "discord", "webhook", "email", "opsgenie", "pagerduty", "telegram")
    }
    assert kinds[Version.MODERN] == {*kinds[Version.OLD], "msteamsv2_configs", "jira_configs"}
    for version, config in made.items():
        urls = {
            hook["url"]
            for one in config["receivers"]
            if one["name"] != "control"
            for hook in one.get("webhook_configs", [])
        }
        assert {f"http://127.0.0.1:18770/v1/pages/{kind}" for kind in BRIDGED[version]} <= urls
        said = [url for url in urls if "/v1/pages/" in url]
        assert len(said) == len(BRIDGED[version])


@pytest.mark.parametrize("version", list(Version))
def test_no_secret_stands_in_a_kept_configuration_but_where_it_reads_no_file(version):
    text = routing.reference(version)
    assert ("discord.com" in text) is (Kind.DISCORD in INLINE[version])
    assert "bot_token: from-the-credentials-file" in text or version is Version.MODERN


def test_a_tier_without_a_live_channel_falls_back_on_level_1_and_a_ticket_rings_nobody(tmp_path):
    live, _ = routing.live_channels(
        house(), Version.OLD, secrets(tmp_path, "slack-url", "opsgenie-key", "discord-url"), None
    )
    made = config_of(house(), place(live), RULES).data
    labels = {"alertname": "IncidentNeedsPerson", "team": "market-operations"}
    assert [hit.receiver for hit in hits_of(made, {**labels, "level": "2"})] == [
        "market-operations-level-2", "market-operations-level-1",
    ]  # fmt: skip
    ticket = {"alertname": "Burn", "audience": "people", "team": "settlement-operations", "level": "3"}
    assert [hit.receiver for hit in hits_of(made, ticket)] == ["on-call"]


@pytest.fixture
def muted(folder, tmp_path):
    """Return an organisation with mutes, a calendar, and everything live."""
    (folder / "phase_mutes.yaml").write_text(MUTES)
    (tmp_path / "calendar.yaml").write_text(CALENDAR)
    organisation = routing.load_organisation(folder)
    calendar = routing.load_calendar(tmp_path / "calendar.yaml")
    live = {name: routing.Credential("/s", "https://d.example.com/x") for name in organisation.channels}
    return organisation, calendar, live


TIMES = [
    "2026-11-27T12:00:00+01:00",
    "2026-11-27T08:30:00+01:00",
    "2026-11-28T12:00:00+01:00",
    "2026-12-25T12:00:00+01:00",
]


@pytest.mark.parametrize("at", TIMES)
@pytest.mark.parametrize("some", [True, False])
def test_exactly_the_named_alerts_are_silent_in_exactly_their_phases_whoever_is_told(muted, at, some):
    organisation, calendar, live = muted
    config = config_of(organisation, place(live if some else {}, calendar), RULES).data
    instant = from_rfc3339(at)
    phase = calendar.phase_at(instant).name
    mutes = {one.alert: one.phases for one in organisation.mutes}
    for name, own in RULES.items():
        labels = {**own, "alertname": name}
        hits = hits_of(config, labels)
        assert hits
        told = {hit.receiver for hit in hits if silent_by(config, hit, instant) is None}
        if phase in mutes.get(name, ()):
            assert not told, name
        else:
            assert told, name
            times = [hit.receiver for hit in hits].count("control")
            assert times == ("audience" not in own), name
            assert ("control" in told) is ("audience" not in own), name
    assert phase in PhaseName


def test_a_mute_changes_neither_group_nor_pace(muted):
    organisation, calendar, live = muted
    plain = config_of(organisation, place(live), RULES).data
    config = config_of(organisation, place(live, calendar), RULES).data
    for name, own in RULES.items():
        one, other = ([
            (hit.receiver, hit.group_by, hit.group_wait, hit.group_interval, hit.repeat_interval, hit.active)
            for hit in hits_of(made, {**own, "alertname": name})
        ] for made in (plain, config))  # fmt: skip
        assert one == other, name


def test_without_a_calendar_nothing_is_muted(muted):
    organisation, _, live = muted
    config = config_of(organisation, place(live), RULES).data
    assert all("phase" not in one["name"] for one in config["time_intervals"])


@pytest.mark.servers
@pytest.mark.parametrize("version", list(Version))
def test_amtool_takes_a_configuration_with_mutes(muted, version, tmp_path):
    from control.servers import amtool

    tool = "amtool" if version is Version.OLD else amtool.find()
    if tool is None:
        pytest.skip("the newest amtool is not built: tapewatch servers build amtool")
    organisation, calendar, live = muted
    config = config_of(organisation, place(live, calendar, version), RULES)
    (tmp_path / "a.yml").write_text(routing.text_of(config, version))
    done = subprocess.run([tool, "check-config", tmp_path / "a.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_by_night_level_2_pages_and_does_not_chat_and_by_day_it_does_both():
    config = whole(Version.OLD)
    labels = {"alertname": "IncidentNeedsPerson", "team": "exchange-platform", "level": "2"}
    for at, tier in (("2026-11-27T12:00:00+01:00", Tier.IN_HOURS), ("2026-11-27T22:00:00+01:00", Tier.OFF_HOURS)):
        told = [hit.receiver for hit in hits_of(config, labels) if silent_by(config, hit, from_rfc3339(at)) is None]
        assert told == [f"exchange-platform-{tier}"]


# --- the estate and the terminal ---


def test_an_estate_with_credentials_keeps_them_to_itself(tmp_path):
    folder = secrets(tmp_path, "slack-url", "discord-url", "opsgenie-key")
    made = routing.estate_routes(load_settings(credentials=folder), 1, 2, tmp_path / "t")
    names = [one["name"] for one in made["receivers"]]
    assert "market-operations-level-1" in names
    assert made["receivers"][0]["webhook_configs"][0]["url"] == "http://127.0.0.1:1/api/v1/alerts"


def test_the_terminal_says_who_is_told_and_why_others_are_silent(tmp_path, monkeypatch, folder):
    (folder / "phase_mutes.yaml").write_text(MUTES)
    (tmp_path / "calendar.yaml").write_text(CALENDAR)
    monkeypatch.setenv("TAPEWATCH_ROUTING", str(folder))
    monkeypatch.setenv("TAPEWATCH_CALENDAR", str(tmp_path / "calendar.yaml"))
    monkeypatch.setenv("TAPEWATCH_CREDENTIALS", str(secrets(tmp_path, "slack-url", "discord-url", "opsgenie-key")))
    code, said, _ = run("alerts", "routes", "EngineDown", "--at", "2026-11-27T12:00:00+01:00")
    assert code == 0
    assert "exchange-platform-level-1" in said
    assert "chat" in said
    code, said, _ = run("alerts", "routes", "EngineDown", "--at", "2026-11-28T12:00:00+01:00", "--json")
    told = yaml.safe_load(said)
    assert [one["silent_by"] for one in told["told"]] == ["phase-closed", "phase-closed"]
    code, said, _ = run("alerts", "routes", "SymbolFeedStale", "--json")
    assert "FeedDown" in yaml.safe_load(said)["held_by"]
    code, said, _ = run("alerts", "routes")
    assert code == 0
    assert "there is no file" in said
    code, _, said = run("alerts", "check")
    assert code == 0, said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("routes", "EngineDwn"), "no rule has such an alert; did you mean EngineDown? Else name its labels"),
        (("routes", "--label", "x"), "write key=value"),
        (("routes", "--label", "a=b", "--label", "a=c"), "a is given twice"),
        (("routes", "EngineDown", "--at", "noon"), "--at"),
        (("config", "--write"), "goes with --reference"),
    ],
)
def test_the_terminal_refuses_what_makes_no_sense(words, said):
    code, _, told = run("alerts", *words)
    assert code == 2
    assert said in told
    assert "Traceback" not in told


def test_the_terminal_prints_a_configuration_that_tells_what_it_is():
    code, said, left_out = run("alerts", "config", "--modern")
    assert code == 0
    assert [one["name"] for one in yaml.safe_load(said)["receivers"]] == ["control", "on-call"]
    assert "left out: chat (slack)" in left_out
    assert run("alerts", "config", "--reference")[1] == (routing.ALERTS / "alertmanager.yml").read_text()


@pytest.mark.parametrize(
    "verb", ["routes", "config", "check", "report", "silence add", "silence list", "silence expire"]
)
def test_every_verb_of_the_group_shows_an_example(verb):
    code, said, _ = run("alerts", *verb.split(), "--help")
    assert code == 0
    assert "Example: tapewatch alerts" in said


@pytest.mark.parametrize(
    ("matcher", "right"),
    [
        ("alertname=EngineDwn", "did you mean EngineDown? --even-so sets it"),
        ("alertname=~Enginne.*", "fits no alert of the rules"),
        ("alertname=xyzzy", "`tapewatch alerts check` knows the rules"),
    ],
)
def test_a_silence_for_an_alert_that_no_rule_has_is_refused_with_a_near_name(matcher, right):
    with pytest.raises(InputError, match="fits no alert of the rules") as told:
        silences.refuse_unknown(["team=x", matcher], ["EngineDown", "GatewayDown"])
    assert right in str(told.value)


@pytest.mark.parametrize("matcher", ["alertname=EngineDown", "alertname=~Eng.*", "alertname!=Nothing", "symbol=ACME"])
def test_a_silence_for_what_the_rules_have_or_for_other_labels_is_taken(matcher):
    silences.refuse_unknown([matcher], ["EngineDown"])


def test_silences_need_an_estate_that_runs(tmp_path):
    code, _, said = run("alerts", "silence", "list", "--state", tmp_path)
    assert code != 0
    assert str(tmp_path) in said
    assert "Traceback" not in said
