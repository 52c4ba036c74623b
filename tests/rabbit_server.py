"""A real RabbitMQ that a session's tests share, a virtual host for each test, and servers of their own to break.

A test that asks for any of these fixtures bears the marker `rabbit` by itself.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from control.servers import rabbit as rabbit_server
from control.servers.rabbit import Rabbit
from control.settings import load_settings
from tests.elastic_node import there

if TYPE_CHECKING:
    from exchange.adapters.rabbit_link import RabbitLink


@pytest.fixture(scope="session")
def rabbit_scripts() -> Path:
    return there(rabbit_server.find(load_settings().rabbitmq), "RabbitMQ")


@pytest.fixture(scope="session")
def rabbit(rabbit_scripts: Path) -> Iterator[Rabbit]:
    """The session's broker: starts in six seconds. Nobody stops or breaks it."""
    with Rabbit(rabbit_scripts) as server:
        yield server


@pytest.fixture
def rabbit_link(rabbit: Rabbit) -> Iterator[RabbitLink]:
    """A way to an empty virtual host that goes with the test."""
    from exchange.adapters.rabbit_link import RabbitLink  # runs without a broker shall not wait for its client

    name = f"t{uuid.uuid4().hex[:10]}"
    yield RabbitLink(rabbit.make_vhost(name), password=rabbit.password)
    rabbit.drop_vhost(name)


@pytest.fixture
def own_rabbit(rabbit_scripts: Path) -> Iterator[Callable[..., Rabbit]]:
    """Call for a broker of one's own, which may be broken; the arguments are those of `Rabbit`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Rabbit(rabbit_scripts, **options))
