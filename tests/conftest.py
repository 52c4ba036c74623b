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
from tests.postgres_server import database, own_postgres, postgres, postgres_programs

__all__ = [
    "database",
    "elastic",
    "elastic_6_home",
    "elastic_home",
    "elastic_name",
    "filebeat_program",
    "own_elastic",
    "own_postgres",
    "postgres",
    "postgres_programs",
    "pytest_collection_modifyitems",
]

# How long a draw takes says more about a shared machine than about a test: one pause of it must not fail one.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
