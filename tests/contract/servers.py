"""Real Prometheus and Alertmanager processes for tests, on free ports, ended by their own process object."""
# mypy: disable-error-code="type-arg, no-any-return"
# (JSON of a foreign interface is read without a type of its own)

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import yaml

from control.plan import free_ports

PROMETHEUS = os.environ.get("TAPEWATCH_PROMETHEUS") or shutil.which("prometheus")
ALERTMANAGER = os.environ.get("TAPEWATCH_ALERTMANAGER") or shutil.which("prometheus-alertmanager")


def free_port() -> int:
    return free_ports(1)[0]


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = 60.0) -> float:
    """Poll until `condition` holds; return how long that took."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() - start < deadline_s, f"not within {deadline_s} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - start


async def answers(url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    return False


@contextlib.asynccontextmanager
async def _running(argv: list[str], url: str, log: Path) -> AsyncIterator[str]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)  # noqa: ASYNC220 - a test may wait
        try:
            await until(lambda: answers(f"{url}/-/ready"))
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.asynccontextmanager
async def prometheus(home: Path, config: dict) -> AsyncIterator[str]:
    """Run Prometheus with `config`; yield its URL."""
    port = free_port()
    path = home / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    argv = [
        str(PROMETHEUS),
        f"--config.file={path}",
        f"--storage.tsdb.path={home / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=5s",
        "--rules.alert.resend-delay=5s",
        "--log.level=warn",
    ]
    async with _running(argv, f"http://127.0.0.1:{port}", home / "prometheus.out") as url:
        yield url


@contextlib.asynccontextmanager
async def alertmanager(home: Path, config: dict) -> AsyncIterator[str]:
    """Run Alertmanager with `config`; yield its URL."""
    port = free_port()
    path = home / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    argv = [
        str(ALERTMANAGER),
        f"--config.file={path}",
        f"--storage.path={home / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    async with _running(argv, f"http://127.0.0.1:{port}", home / "alertmanager.out") as url:
        yield url
