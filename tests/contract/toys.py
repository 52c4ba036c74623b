"""A toy exporter and a webhook sink, served by the test itself."""
# mypy: disable-error-code="type-arg"
# (JSON of a foreign interface is read without a type of its own)

from typing import Any, Self

from aiohttp import web


class Toy:
    """Serves `/metrics` with whatever the test puts there, and keeps every JSON body posted to `/hook`."""

    def __init__(self) -> None:
        self.page = ""
        self.dead = False
        self.scrapes = 0
        self.hooks: list[tuple[Any, str | None]] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_post("/hook", self._hook)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self.scrapes += 1
        if self.dead:
            return web.Response(status=500)
        return web.Response(text=self.page, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _hook(self, request: web.Request) -> web.Response:
        self.hooks.append((await request.json(), request.headers.get("Authorization")))
        return web.Response()

    def alerts(self, name: str) -> list[dict]:
        return [alert for body, _ in self.hooks for alert in body["alerts"] if alert["labels"]["alertname"] == name]
