import pytest

from control.plan import ships
from control.settings import load_settings


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        ({}, False),
        ({"elastic_url": "http://127.0.0.1:9200"}, True),
        ({"elastic_url": "http://127.0.0.1:9200", "ship_logs": False}, False),
    ],
)
def test_an_estate_ships_its_logs_where_an_elasticsearch_is_named_and_nobody_else_does(given, runs):
    assert ships(load_settings(**given)) is runs
