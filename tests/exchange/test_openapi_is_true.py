"""The OpenAPI document held against the gateway: Schemathesis makes requests from it, answers are as it says."""

from __future__ import annotations

import os

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.exchange.gateway_thread import gateway_in_thread

TOKEN = {"Authorization": "Bearer trade-secret"}
OPERATIONS = (
    ("/v1/orders", "post"), ("/v1/orders", "delete"), ("/v1/orders/{order_id}", "delete"),
    ("/v1/orders/{order_id}", "patch"), ("/v1/orders/by-client-id/{account}/{client_id}", "get"),
    ("/v1/instruments", "get"), ("/v1/calendar", "get"), ("/health/live", "get"), ("/health/ready", "get"),
)  # fmt: skip
# A well-made order may be refused: by the rules of the market (422), or because its type has no such member (400).
MARKETS_RULES = [positive_data_acceptance]
# Of a request without a body and without parameters nothing can be wrong.
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CASES = [(*one, RIGHT) for one in OPERATIONS] + [(*one, WRONG) for one in OPERATIONS if "orders" in one[0]]
FEW = 12
MANY = 1500


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    with gateway_in_thread(tmp_path_factory.mktemp("openapi")) as told:
        yield told


@pytest.fixture(scope="module")
def document(front):
    return requests.get(front.url + "/openapi.json", timeout=5).json()


def call_many(front, document, path, method, mode, examples):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = front.url
    operation = schema[path][method.upper()]
    with requests.Session() as session:

        @seed(20261129)
        @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            answer = case.call(session=session, headers=TOKEN, timeout=10)
            case.validate_response(
                answer, headers=TOKEN, transport_kwargs={"timeout": 10}, excluded_checks=MARKETS_RULES
            )
            assert answer.status_code < 500
            assert answer.headers["x-request-id"][0]

        holds()


def test_every_route_of_the_document_is_held_against_the_gateway(document):
    assert {(path, method) for path, item in document["paths"].items() for method in item} == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method", "mode"), CASES, ids=str)
def test_what_the_document_says_is_true_of(front, document, path, method, mode):
    call_many(front, document, path, method, mode, FEW)


@pytest.mark.long
@pytest.mark.parametrize(("path", "method", "mode"), CASES, ids=str)
def test_what_the_document_says_is_true_many_times_of(front, document, path, method, mode):
    call_many(front, document, path, method, mode, int(os.environ.get("EXAMPLES", MANY)))
