"""Fixtures that tests of several rooms share."""

from tests.elastic_node import (
    elastic,
    elastic_6_home,
    elastic_home,
    elastic_name,
    filebeat_program,
    own_elastic,
    pytest_collection_modifyitems,
)

__all__ = [
    "elastic",
    "elastic_6_home",
    "elastic_home",
    "elastic_name",
    "filebeat_program",
    "own_elastic",
    "pytest_collection_modifyitems",
]
