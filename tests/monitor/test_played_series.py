"""Series played from promtool's notation are the ones promtool itself would play."""

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InputError
from monitor.adapters.exporter import samples
from monitor.signals import SeriesScript, alert_scripts, exposition, parse_series, parse_values

ROOT = Path(__file__).parents[2]
RULES = [
    rule["alert"]
    for path in sorted((ROOT / "alerts/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def test_the_notation_is_read_as_its_documentation_says():
    assert parse_values("1 2.5 _ 4e3 stale -1") == [1, 2.5, None, 4000, None, -1]
    assert parse_values("0+5x3") == [0, 5, 10, 15]
    assert parse_values("10-2x2") == [10, 8, 6]
    assert parse_values("7x2") == [7, 7, 7]
    assert parse_values("-2+4x1 _x3 1x0") == [-2, 2, None, None, None, 1]
    assert parse_values("0+0.1x2")[2] == pytest.approx(0.2)
    assert parse_values("") == []


@pytest.mark.parametrize(
    "text", ["x", "1x", "x5", "1+x3", "__", "_x", "1x99999999999", "{{schema:0}}", "1x99999 1x99999"]
)
def test_what_is_no_notation_is_refused(text):
    with pytest.raises(InputError):
        parse_values(text)


def test_promtool_plays_the_same_values(tmp_path):
    """Each value that we expand is what promtool's own evaluation says at that second."""
    text = "3 _ 5+2x4 7x2 _x2 1-1x3 0.5 stale 2"
    values = parse_values(text)
    # Within the look-back of five minutes promtool still sees a missing sample's forerunner, but not one that is stale.
    expected, last = [], None
    for word, value in zip(_words(text), values, strict=True):
        last = None if word == "stale" else (last if value is None else value)
        expected.append(last)
    cases = [
        {
            "expr": "m",
            "eval_time": f"{second}s",
            "exp_samples": [] if value is None else [{"labels": "m", "value": value}],
        }
        for second, value in enumerate(expected)
    ]
    suite = {"evaluation_interval": "1s", "tests": [
        {"interval": "1s", "input_series": [{"series": "m", "values": text}], "promql_expr_test": cases}]}  # fmt: skip
    (tmp_path / "t.yml").write_text(yaml.safe_dump(suite))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "t.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _words(text):
    for word in text.split():
        yield from [word] * len(parse_values(word))


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_labels_survive_being_written_and_read(labels):
    script = SeriesScript("metric", labels, [1.5], 1.0)
    text = exposition([script], 0.0, 0.0)
    if not any("\r" in value or not value.isprintable() for value in labels.values()):
        ((name, read, value),) = samples(text.encode())
        assert (name, dict(read), value) == ("metric", labels, 1.5)
    written = ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items())
    assert parse_series(f"metric{{{written}}}") == ("metric", labels)


def _escape(value):
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def test_time_moves_the_values_and_points_in_time_begin_now():
    scripts = [
        SeriesScript("a", {}, [1, None, 3], 1.0),
        SeriesScript("b_timestamp_seconds", {}, [5], 1.0),
        SeriesScript("a", {"x": "y"}, [9], 1.0),
    ]
    assert exposition(scripts, 0.5, 1000.0) == 'a{} 1\na{x="y"} 9\nb_timestamp_seconds{} 1005.0\n'
    assert "a{} " not in exposition(scripts, 1.0, 1000.0)
    assert "a{} 3\n" in exposition(scripts, 99.0, 1000.0)


@pytest.mark.parametrize("text", ["", "{}", "a b", "a{x=1}", 'a{x="1"', 'a{="1"}'])
def test_what_is_no_series_is_refused(text):
    with pytest.raises(InputError):
        parse_series(text)


def test_every_alert_can_be_made_to_fire():
    scripts = [
        script
        for path in sorted((ROOT / "alerts/tests").glob("*.yml"))
        for script in alert_scripts(yaml.safe_load(path.read_text()), path.name)
    ]
    assert {script.alert for script in scripts} == set(RULES)
