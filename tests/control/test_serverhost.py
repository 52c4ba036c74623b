"""A server host: the server lives and dies with it, is ready by its own word, and can be struck by faults."""

import asyncio
import json
import re

import aiohttp
import msgspec
import psutil
import pytest

from control import serverhost
from control.plan import free_ports
from control.servers import hosted
from control.servers.catalogue import HOST_PORT
from control.servers.hosted import ServerConfig
from kernel.errors import PermanentError
from tests.control.hosted_sleeper import HostedSleeper

ADMIN = "an-admin-secret-of-some-length"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(hosted._KINDS, "zipkin", ("tests.control.hosted_sleeper", "HostedSleeper"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin").write_text(ADMIN)
    ports = {"zipkin-1": {HOST_PORT: free_ports(1)[0]}}
    return ServerConfig(
        service="zipkin", replica="zipkin-1", state=str(tmp_path), directory=str(tmp_path / "data"), ports=ports,
        faults_allowed=True,
    )  # fmt: skip


async def hosting(config, stop):
    """Serve until the server is ready; return the task and the server's process."""
    task = asyncio.create_task(serverhost.serve(config, stop))
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        while not task.done():
            try:
                async with client.get(f"http://127.0.0.1:{config.port}/health/ready") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
    children = psutil.Process().children()
    return task, next((one for one in children if one.name() == "sleep"), None)


async def fault(config, method, name):
    body = json.dumps({"name": name}) if method == "POST" else None
    url = f"http://127.0.0.1:{config.port}/admin/faults" + ("" if body else f"?name={name}")
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as client, client.request(method, url, data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process tells of nothing
            await asyncio.sleep(0.02)


async def test_it_stops_its_server_when_told_to(config):
    stop = asyncio.Event()
    task, child = await hosting(config, stop)
    assert child.is_running()
    stop.set()
    assert await task == 0
    assert not child.is_running()


async def test_it_ends_with_the_servers_last_words_when_that_ends(config, capsys):
    task, child = await hosting(config, asyncio.Event())
    await fault(config, "POST", "server-kill")
    assert await asyncio.wait_for(task, 60) == 1
    assert capsys.readouterr().err == "zipkin-1: the sleeper ended with -9\n"
    assert not child.is_running()


async def test_a_stalled_server_stands_still_until_that_is_cleared(config):
    stop = asyncio.Event()
    task, child = await hosting(config, stop)
    await fault(config, "POST", "server-stall")
    await until(lambda: child.status() == psutil.STATUS_STOPPED)
    await fault(config, "DELETE", "server-stall")
    await until(lambda: child.status() != psutil.STATUS_STOPPED)
    await fault(config, "POST", "server-stall")
    await until(lambda: child.status() == psutil.STATUS_STOPPED)
    stop.set()
    assert await asyncio.wait_for(task, 60) == 0  # it is let go on, or it would never see that it is to end


async def test_a_slow_server_stands_still_again_and_again_until_that_is_cleared(config):
    stop = asyncio.Event()
    task, child = await hosting(config, stop)
    await fault(config, "POST", "server-slow")
    for _ in range(2):
        await until(lambda: child.status() == psutil.STATUS_STOPPED)
        await until(lambda: child.status() != psutil.STATUS_STOPPED)
    await fault(config, "DELETE", "server-slow")
    going = 0

    def goes_on():
        nonlocal going
        going = 0 if child.status() == psutil.STATUS_STOPPED else going + 1
        return going >= 30  # a slow one stands still at least once in so long

    await until(goes_on)
    stop.set()
    assert await asyncio.wait_for(task, 60) == 0


def test_what_a_client_library_says_in_several_lines_is_one_last_line(capsys):
    assert serverhost._say("postgres-2: the server ended\n\tbefore or while\n\tprocessing", 1) == 1
    assert capsys.readouterr().err == "postgres-2: the server ended before or while processing\n"


async def test_a_server_that_cannot_start_is_told(config, monkeypatch):
    monkeypatch.setattr(HostedSleeper, "refuses", "there is no such program")
    with pytest.raises(PermanentError, match="there is no such program"):
        await serverhost.serve(config, asyncio.Event())


def test_a_configuration_of_another_version_is_refused(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("{}")
    assert serverhost.main([str(path)]) == serverhost.CONFIG_REFUSED
    assert "no configuration of this version" in capsys.readouterr().err
    assert serverhost.main([str(tmp_path / "none.json")]) == serverhost.CONFIG_REFUSED
    assert serverhost.main([]) == 2


def test_an_unknown_service_is_refused_by_name(config):
    with pytest.raises(PermanentError, match="service 'redis' is not known; there are kafka"):
        hosted.hosted(ServerConfig(service="redis", replica="redis-1", state="", directory="", ports={}))


def test_a_full_disk_is_named_beside_whatever_the_server_says_of_it(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(HostedSleeper, "refuses", "connection closed")
    path = tmp_path / "zipkin.json"
    path.write_bytes(msgspec.json.encode(config))
    assert serverhost.main([str(path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "zipkin-1: connection closed"
    monkeypatch.setattr(serverhost, "DISK_FULL_BYTES", 2**62)
    assert serverhost.main([str(path)]) == 1
    assert re.search(rf"connection closed; the disk of {tmp_path} is full \(\d+ MiB left\)", capsys.readouterr().err)
