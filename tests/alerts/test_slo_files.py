"""Objectives are read as they stand, and whatever is wrong in them is named with its line."""

from pathlib import Path

import pytest

from kernel.errors import InputError
from monitor.adapters.slo_files import HOUSE, load, of_texts
from monitor.slo import alert_name
from monitor.slo_rules import files_of

ROOT = Path(__file__).parents[2]
TEXTS = {path.name: path.read_text() for path in sorted(HOUSE.glob("*.yaml"))}


def changed(file, old, new):
    assert TEXTS[file].count(old) >= 1, old
    texts = {**TEXTS, file: TEXTS[file].replace(old, new, 1)}
    line = TEXTS[file][: TEXTS[file].index(old)].count("\n") + 1
    return {name: text.encode() for name, text in texts.items()}, line


def test_the_rules_are_those_that_the_objectives_make():
    for name, text in files_of(load()).items():
        assert (ROOT / "alerts/rules" / name).read_text() == text, "run `tapewatch slo rules --write`"


def test_every_objective_is_read_with_four_conditions_of_the_budget():
    slos = load()
    assert [slo.name for slo in slos] == [
        "incident-mitigation", "market-data-freshness", "order-entry-availability", "order-entry-latency",
        "settlement-lag",
    ]  # fmt: skip
    for slo in slos:
        assert [(one.burn, one.long, one.short) for one in slo.conditions] == [
            (14.4, "1h", "5m"), (6.0, "6h", "30m"), (3.0, "1d", "2h"), (1.0, "3d", "6h"),
        ]  # fmt: skip
    names = [alert_name(slo.name, one.name) for slo in slos for one in slo.conditions]
    assert len(set(names)) == 20


AVAILABLE, LAG, BURN = "order-entry-availability.yaml", "settlement-lag.yaml", "burn.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (AVAILABLE, "kind: SLO", "kind: SL0", "kind is 'SL0'"),
        (AVAILABLE, "apiVersion: openslo/v1", "apiVersion: openslo/v2", "apiVersion is 'openslo/v2'"),
        (AVAILABLE, "  service: gateway", "  servise: gateway", "spec.servise is not known"),
        (AVAILABLE, "  service: gateway", "  service: gate", "there is no Service gate"),
        (AVAILABLE, "{displayName: Proper answers, target: 0.999}", "{target: 1.0}", "the target is 1"),
        (AVAILABLE, "{displayName: Proper answers, target: 0.999}", "{target: 99.9}", "the target is 99.9"),
        (AVAILABLE, "target: 0.999}", "target: yes}", "is True"),
        (AVAILABLE, "Proper answers, target: 0.999", "Proper answers, op: lt, target: 0.999", "a ratio has no op"),
        (AVAILABLE, "sum(rate(exchange_gateway_requests_total{", "sum(rate(exchange_requests_total{", "nobody exports"),
        (AVAILABLE, "shed|unavailable", "shed|unavailible", "is never 'unavailible'"),
        (AVAILABLE, '{outcome=~"', '{result=~"', "has no label result"),
        (AVAILABLE, "{query: 'sum(rate(exchange_gateway_requests_total[{{.window}}]))'}", "{}", "lacks query"),
        (AVAILABLE, "requests_total[{{.window}}]", "requests_total[5m]", "takes no rate over the window"),
        (AVAILABLE, "counter: true", "counter: false", "only counters are read"),
        (AVAILABLE, "duration: 30d", "duration: 28d", "timeWindow.0.duration is '28d'"),
        (AVAILABLE, "isRolling: true", "isRolling: false", "does not roll"),
        (AVAILABLE, "budgetingMethod: Occurrences", "budgetingMethod: Timeslices", "budgetingMethod is 'Timeslices'"),
        (AVAILABLE, "    - burn", "    - burns", "there is no AlertPolicy burns"),
        (AVAILABLE, 'minimum-events: "100"', 'minimum-events: "0"', "'0' is no number of events"),
        (AVAILABLE, "  name: order-entry-availability", "  name: Order Entry", "the name is 'Order Entry'"),
        (AVAILABLE, "  name: order-entry-availability", "  name: settlement-lag", "settlement-lag"),
        ("order-entry-latency.yaml", 'le="0.25"', 'le="0.3"', "has no bucket 0.3"),
        ("incident-mitigation.yaml", 'le="300.0"', 'le="300"', "has no bucket 300"),
        (LAG, "op: lte, value: 30, ", "", "a threshold needs op and value"),
        (LAG, "op: lte", "op: eq", "op is 'eq'"),
        (BURN, "threshold: 14.4", "threshold: 0", "the burn rate is 0"),
        (BURN, "lookbackWindow: 1h", "lookbackWindow: 2h", "lookbackWindow is '2h'"),
        (BURN, "short-window: 5m", "short-window: 6h", "6h is not shorter than 1h"),
        (BURN, "conditionRef: leaks", "conditionRef: leak", "there is no AlertCondition leak"),
        (BURN, "conditionRef: leaks", "conditionRef: burns", "comes twice"),
        (BURN, "kind: burnrate", "kind: rate", "kind is 'rate'"),
        (BURN, "alertAfter: 1m", "alertAfter: 1s", "alertAfter is '1s'"),
        (BURN, "alertWhenNoData: false", "alertWhenNoData: true", "alertwhennodata is not false"),
        ("services.yaml", "team: market-operations", "team: nobody", "team is 'nobody'"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_what_would_be_right(file, old, new, says):
    texts, line = changed(file, old, new)
    with pytest.raises(InputError) as caught:
        of_texts(texts)
    assert says in caught.value.problem
    assert caught.value.right
    named, at = caught.value.where.rsplit(":", 1)
    if "twice" not in says and "settlement-lag" not in says:
        assert named == file
        assert abs(int(at) - line) <= 1, "the line, or that of the mapping which holds it"


def test_an_alert_that_could_never_fire_is_refused():
    texts, _ = changed("incident-mitigation.yaml", "target: 0.95", "target: 0.9")
    with pytest.raises(InputError, match=r"a burn rate of 14\.4 can never be reached"):
        of_texts(texts)


@pytest.mark.parametrize("text", ["", "- a\n", "kind: SLO\n", "a: &x 1\n", "\x00", "---\n---\n"])
def test_a_file_that_is_no_openslo_is_refused_in_a_sentence(text):
    with pytest.raises(InputError):
        of_texts({"a.yaml": text.encode()})


def test_a_directory_without_objectives_is_refused(tmp_path):
    with pytest.raises(InputError, match="no objectives are there"):
        load(tmp_path)
