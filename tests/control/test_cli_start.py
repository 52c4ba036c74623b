"""A start that cannot be: each reason is one sentence, and no process is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess

import aiohttp
import pytest

from control import plan
from control.plan import free_ports
from control.servers.catalogue import port_names
from control.settings import Settings
from kernel.errors import PermanentError
from tests.control.desk_plant import alert, desk_plant, notification
from tests.control.test_cli import run

PORTS = [name for name in Settings.model_fields if name.startswith("port_")]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def free_row():
    """Return a port from which on all that the services need are free, below those the kernel gives away."""
    needed = len(list(port_names()))
    return next(
        first for first in range(20_000, 32_000, needed) if all(plan.is_free(first + step) for step in range(needed))
    )


@pytest.mark.parametrize("taken", PORTS)
def test_a_fixed_port_in_use_is_named_with_its_holder_and_its_setting(taken):
    free = dict(zip(PORTS, free_ports(len(PORTS)), strict=True)) | {"port_servers": free_row()}
    # What runs only where it is configured is configured, so that its port is needed.
    kind = {"estate": "distributed"} if taken == "port_servers" else {"on": "kubernetes"}
    settings = Settings(
        gateways=1, gateways_max=1, bridge="bridge.yml", elastic_url="http://127.0.0.1:1", **kind, **free
    )
    with socket.create_server(("127.0.0.1", free[taken])), pytest.raises(PermanentError) as told:
        plan.choose_ports(settings)
    key = f"TAPEWATCH_{taken.upper()}"
    assert f"port {free[taken]} (" in str(told.value)
    assert f"is in use by pid {os.getpid()} (" in str(told.value)
    assert f"set {key} or TAPEWATCH_PORTS=auto" in str(told.value)
    assert plan.choose_ports(settings).named()["control"] == free["port_control"]


@contextlib.contextmanager
def disk(place, *options: str):
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@root_only
@pytest.mark.parametrize(("options", "why"), [(("size=16k",), "No space left on device"), (("ro",), "Read-only")])
def test_a_state_directory_on_a_full_or_read_only_disk_is_one_sentence(tmp_path, monkeypatch, options, why):
    monkeypatch.setenv("TAPEWATCH_PORTS", "auto")
    with disk(tmp_path / "disk", *options) as place:
        code, out, err = run("up", "--state", place / "s")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert "cannot be written" in err
        assert why in err


@root_only
async def test_while_the_disk_is_full_control_answers_503_and_takes_the_alert_in_afterwards(tmp_path):
    with disk(tmp_path / "disk", "size=4m") as place:
        async with desk_plant(place / "s") as plant, aiohttp.ClientSession() as session:

            async def post(n: int) -> tuple[int, str]:
                body = json.dumps(notification(alert(fingerprint=f"{n:08x}"), groupKey=f"g{n}"))
                url, headers = f"{plant.url}/api/v1/alerts", plant.bearer("webhook")
                async with session.post(url, data=body, headers=headers) as answer:
                    return answer.status, await answer.text()

            assert (await post(0))[0] == 202
            with (place / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * 4096):
                    pass
            answers = [await post(n) for n in range(1, 60)]
            assert answers[-1][0] == 503, answers[-1]
            assert "the disk is full" in answers[-1][1]
            assert {status for status, _ in answers} <= {202, 503}
            async with session.get(f"{plant.url}/health/live") as answer:
                assert answer.status == 200
            (place / "fill").unlink()
            assert (await post(60))[0] == 202
