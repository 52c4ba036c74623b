"""The drill of the alerts: what it chooses, what may fire together, and one round on real servers."""

import json
import time
from dataclasses import replace

import pytest
import yaml

from control import alert_drill, render
from control.alert_drill import AlertDrill, AlertSeen, Sink, link_problems, sentence, sink_config
from control.alert_plan import LIVE_MAX_S, STANDING, Planned, batches, fits, planned
from control.verbs_drill import run_alert_drill
from kernel.errors import InputError, PermanentError
from monitor.signals import AlertScript, SeriesScript

GATEWAY_DOWN = next(one.rule for one in planned(every=True)[0] if one.script.alert == "GatewayDown")
FAMILIES = {
    f"{path.stem}/{group['name']}"
    for path in (render.ALERTS / "rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    if any("alert" in rule and rule["alert"] not in STANDING for rule in group["rules"])
}


def made(alert, metric="m", **labels):
    return Planned("f/g", AlertScript(alert, [SeriesScript(metric, {}, [1.0], 1.0)], 1.0, labels, "t.yml"), {})


def test_every_family_fires_an_alert_or_says_why_not():
    chosen, slow = planned(every=False)
    families = [one.family for one in chosen]
    assert len(families) == len(set(families))
    for family in FAMILIES - set(families):
        assert slow, f"nothing of {family} is fired, and nothing is said of it"
    everything, left_out = planned(every=True)
    names = [one.script.alert for one in everything] + left_out
    assert len(names) == len(set(names))
    assert all(one.script.fires_after_s <= LIVE_MAX_S for one in everything)


def test_what_is_named_is_chosen_and_what_is_unknown_is_refused():
    chosen, _ = planned(every=False, only=["GatewayDown"])
    assert [one.script.alert for one in chosen] == ["GatewayDown"]
    family, _ = planned(every=False, only=["orders/engine"])
    assert {one.family for one in family} == {"orders/engine"}
    with pytest.raises(InputError, match="there are the families"):
        planned(every=False, only=["GatewayDwon"])


def test_an_alert_without_a_test_that_fires_it_is_refused(tmp_path):
    for name in ("rules", "tests"):
        (tmp_path / name).mkdir()
    rule = {"alert": "Untested", "expr": "up == 0", "labels": {}}
    (tmp_path / "rules/a.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    with pytest.raises(InputError, match="no promtool test fires it"):
        planned(every=True, alerts=tmp_path)


def test_alerts_that_hold_each_other_back_or_share_a_metric_fire_apart():
    rule = {"source_matchers": ['alertname="Cause"'], "target_matchers": ['alertname=~"Symptom|Other"']}
    cause, symptom, sharer, free = made("Cause", "a"), made("Symptom", "b"), made("Free", "a"), made("Fine", "c")
    found = batches([cause, symptom, sharer, free], [rule], {})
    assert [[one.script.alert for one in batch] for batch in found] == [["Cause", "Fine"], ["Symptom", "Free"]]
    apart = batches([made("X", "x"), made("Y", "y")], [], {"X": frozenset({"z"}), "Y": frozenset({"z"})})
    assert len(apart) == 2, "rules that look at one metric would see each other's series"


@pytest.mark.parametrize(
    ("matcher", "labels", "holds"),
    [
        ('severity="critical"', {"severity": "critical"}, True),
        ('severity="critical"', {}, False),
        ('severity!="critical"', {}, True),
        ('alertname=~".+Down"', {"alertname": "EngineDown"}, True),
        ('alertname=~"Down"', {"alertname": "EngineDown"}, False),
        ('alertname!~"A|B"', {"alertname": "B"}, False),
        ("team=x", {"team": "x"}, True),
    ],
)
def test_matchers_are_read_as_alertmanager_reads_them(matcher, labels, holds):
    assert fits(matcher, labels) is holds


def test_links_that_lead_nowhere_are_told():
    good = {"runbook_url": "https://x.example/docs/alerts.md#gatewaydown", "dashboard": "https://x.example/d/none"}
    assert link_problems({"annotations": good}) == ["its dashboard link leads to no board: https://x.example/d/none"]
    assert len(link_problems({"annotations": {"runbook_url": "https://x.example/docs/alerts.md#nothing"}})) == 2
    assert len(link_problems({})) == 2


def test_every_receiver_becomes_a_sink_and_no_route_changes():
    source = render.load_yaml(render.ALERTS / "alertmanager.yml")
    made_of = sink_config(source, 7)
    assert made_of["route"] == source["route"]
    assert [one["name"] for one in made_of["receivers"]] == [one["name"] for one in source["receivers"]]
    assert all(set(one) == {"name", "webhook_configs"} for one in made_of["receivers"])


def test_a_verdict_needs_every_link():
    whole = AlertSeen(alert="A", family="f", level="1", fired_s=1.0, told_s=2.0, receivers=["r"], resolved_s=3.0)
    assert whole.passed
    assert "resolved 3.0 s after" in sentence(whole)
    assert not AlertSeen(alert="A", family="f", fired_s=1.0, told_s=2.0, receivers=["r"]).passed
    assert not AlertSeen(alert="A", family="f", resolved_s=1.0, problems=["no board"]).passed


class Look:
    """Two servers that have the alert firing, for two receivers."""

    async def fires(self, _):
        return True

    async def receivers(self, _):
        return ["pager", "chat"], False


async def test_an_alert_that_one_of_two_receivers_did_not_hear_of_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr(alert_drill, "receivers_of", lambda *_: ["pager", "chat"])
    monkeypatch.setattr(alert_drill, "FIRE_SLACK_S", 0.5)
    monkeypatch.setattr(alert_drill, "_LOOK_S", 0.01)
    drill, sink, one = AlertDrill.__new__(AlertDrill), Sink(), made("GatewayDown")
    drill._folder = tmp_path
    one = Planned(one.family, replace(one.script, fires_after_s=0.0), GATEWAY_DOWN)
    for heard, problems in ((["pager"], ["these were not told: chat"]), (["pager", "chat"], [])):
        sink.play([one])
        sink.told = {
            (name, "GatewayDown", "firing"): [(time.time() + 0.01, {"alertname": "GatewayDown"})] for name in heard
        }
        what = AlertSeen(alert="GatewayDown", family="f")
        await drill._to_told(one, what, sink, Look())
        assert what.problems == problems
        assert (what.told_s is None) == bool(problems)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(PermanentError, match="cannot be kept in"):
        run_alert_drill(["GatewayDown"], tmp_path / "taken", every=False, as_json=True, keep=False)


@pytest.mark.servers
def test_an_alert_is_followed_from_its_series_to_its_receiver_and_back(tmp_path, capsys):
    run_alert_drill(["GatewayDown"], tmp_path, every=False, as_json=True, keep=False)
    told = json.loads(capsys.readouterr().out)
    (seen,) = told["alerts"]
    assert seen["receivers"] == ["control"]
    assert seen["fired_s"] > 0
    assert seen["told_s"] > 0
    assert seen["resolved_s"] > 0
    kept = next(tmp_path.iterdir())
    assert json.loads((kept / "result.json").read_text()) == told
    assert not (kept / "data").exists()
