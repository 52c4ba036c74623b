"""What every HTTP client of ours shares: one kept session, made when first needed, closed when asked."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp


class HttpClient:
    """The base of a client. Use it as an async context manager, or call `close`; made for one event loop.

    Connections are kept, so that an urgent call does not wait for a new one. Proxies of the environment are never used:
    what we call stands beside us.
    """

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        """Speak to the server at `url`; a call takes at most `timeout_s` in all."""
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = dict(headers or {})
        self._kept: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._kept is not None:
            await self._kept.close()
            self._kept = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._kept is None:
            # no cache of names: the server behind one may have been replaced, and have another address
            connector = aiohttp.TCPConnector(use_dns_cache=False)
            self._kept = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, headers=self._headers, trust_env=False
            )
        return self._kept
