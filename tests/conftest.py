"""Fixtures that tests of several rooms share."""

from hypothesis import HealthCheck, settings

from tests.elastic_node import (
    elastic,
    elastic_6_home,
    elastic_home,
    elastic_name,
    filebeat_program,
    own_elastic,
    pytest_collection_modifyitems,
)
from tests.kafka_brokers import kafka, kafka_home, kafka_place

__all__ = [
    "elastic",
    "elastic_6_home",
    "elastic_home",
    "elastic_name",
    "filebeat_program",
    "kafka",
    "kafka_home",
    "kafka_place",
    "own_elastic",
    "pytest_collection_modifyitems",
]

# How long a draw takes says more about a shared machine than about a test: one pause of it must not fail one.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
