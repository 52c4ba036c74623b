import pytest

from monitor.promql import is_raw_selector, metric_names, quoted


@pytest.mark.parametrize("text", ["up", 'up{job="engine"}', 'up{job=~"a|b", replica!="c"}', "up{}", ' up{a="}\\"{"} '])
def test_a_scraped_selector_is_told(text):
    assert is_raw_selector(text)


@pytest.mark.parametrize(
    "text", ["", "a:b:c", "sum(up)", "up[5s]", "up offset 1s", "up or x", "up @ 1", 'up{job="a"}[1s]', "up{job=}", "1"]
)
def test_anything_else_is_not(text):
    assert not is_raw_selector(text)


def test_a_hostile_label_value_stays_a_value():
    assert quoted('a"} or vector(1) #\n\\') == '"a\\"} or vector(1) #\\n\\\\"'


def test_the_metrics_of_an_expression_are_found():
    text = 'sum by (le) (rate(a_bucket{x="y_total"}[5s])) > 0.5 and on (job) max(up) unless s:m:o == 1e3 or b offset 2s'
    assert metric_names(text) == {"a_bucket", "up", "s:m:o", "b"}
