"""RabbitMQ under its host: the exchange's queues are there before it counts as ready, and its end is told."""

import asyncio
import time

import pytest

from control import server_plan
from control.layout import Layout
from control.plan import free_ports
from control.servers.catalogue import BY_NAME, HOST_PORT
from control.servers.hosted import ServerConfig, hosted
from control.servers.hosted_rabbit import HostedRabbit
from control.settings import Settings
from exchange.adapters.rabbit_link import RabbitLink
from exchange.adapters.rabbit_topology import TOPOLOGY
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role


@pytest.fixture
def config(tmp_path):
    secret = Layout(tmp_path).secret("rabbitmq")
    secret.parent.mkdir(parents=True)
    secret.write_text("of-this-estate\n")
    names = (HOST_PORT, *BY_NAME["rabbitmq"].ports)
    return ServerConfig(
        service="rabbitmq", replica="rabbitmq-1", state=str(tmp_path), directory=str(tmp_path / "servers" / "rabbit"),
        ports={"rabbitmq-1": dict(zip(names, free_ports(len(names)), strict=True))},
    )  # fmt: skip


def told(server):
    exporter = Exporter(Role.RABBITMQ, process=False)
    server.observe(exporter)
    return {name: value for name, _, value in samples(exporter.render()) if name.startswith("rabbitmq_")}


def test_it_is_ready_with_the_exchanges_queues_and_says_why_it_ended(rabbit_scripts, config):
    server = hosted(config)
    assert isinstance(server, HostedRabbit)
    try:
        server.start()
        assert server.ready()[0]
        assert told(server)["rabbitmq_up"] == 1
        broker = server._server
        queues = {each["name"]: each["type"] for each in broker.ask("/api/queues")}
        assert queues == {name: "quorum" for each in TOPOLOGY.queues for name in (each.name, each.dead)}
        opened = asyncio.run(_opens(RabbitLink(broker.url(), password="of-this-estate")))
        assert opened
        assert server.ended() == ""
        broker.kill()
        ready, why = server.ready()
        assert (ready, told(server)["rabbitmq_up"]) == (False, 0)
        assert "no broker answers" in why
        assert server.ended().startswith("RabbitMQ ended: ")
        assert "of-this-estate" not in server.ended()
    finally:
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 20


async def _opens(link):
    async with link.connection() as connection:
        return not connection.is_closed


def test_its_own_page_of_metrics_is_read_where_the_estate_runs_it(tmp_path):
    from control import plan

    settings = Settings(state=tmp_path, ports="auto", estate="distributed")
    ports = plan.choose_ports(settings)
    pages = server_plan.own_pages(settings, ports)
    assert pages["rabbitmq-server"] == [("rabbitmq-1", ports.servers["rabbitmq-1/prometheus"])]
    without = settings.model_copy(update={"services": ("zipkin",)})
    assert "rabbitmq-server" not in server_plan.own_pages(without, ports)
