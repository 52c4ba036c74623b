"""Fixtures that tests of several rooms share."""

import functools

import typer.testing
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
from tests.postgres_server import database, own_postgres, postgres, postgres_programs
from tests.rabbit_server import own_rabbit, rabbit, rabbit_link, rabbit_scripts
from tests.stages import pytest_deselected, pytest_ignore_collect

__all__ = [
    "database",
    "elastic",
    "elastic_6_home",
    "elastic_home",
    "elastic_name",
    "filebeat_program",
    "kafka",
    "kafka_home",
    "kafka_place",
    "own_elastic",
    "own_postgres",
    "own_rabbit",
    "postgres",
    "postgres_programs",
    "pytest_collection_modifyitems",
    "pytest_deselected",
    "pytest_ignore_collect",
    "rabbit",
    "rabbit_link",
    "rabbit_scripts",
]

# How long a draw takes says more about a shared machine than about a test: one pause of it must not fail one.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# Typer builds the tree of all verbs anew whenever it is asked one: a tenth of a second, and the same tree each time.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]
