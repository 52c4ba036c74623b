"""Requests to providers of pages: fixed hosts, no redirects, no private addresses, bounded answers, secrets unseen."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from incidents.paging.answers import HttpAnswer, HttpRequest
from kernel.errors import InputError, TemporaryError

ANSWER_BYTES_MAX: Final = 256 * 1024
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class NotSentError(TemporaryError):
    """The request never reached the provider: trying again cannot double anything."""


class DoubtfulError(TemporaryError):
    """The request may have reached the provider; nobody knows."""


class PagerHttp:
    """A client for providers. Made for one event loop; call `close`."""

    def __init__(self, *, timeout_s: float = 10.0, loopback: bool = False) -> None:
        """A call takes at most `timeout_s` in all. `loopback`: it speaks to this machine, and to nothing else."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 2)
        self._loopback = loopback
        self._kept: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._kept is not None:
            await self._kept.close()
            self._kept = None

    async def call(self, request: HttpRequest, hosts: Sequence[str]) -> HttpAnswer:
        """Send a request and return the answer, whatever its status; a redirect is an answer like any other.

        Raises:
            NotSentError: it did not arrive.
            DoubtfulError: it may have arrived.
            PermanentError: its address is none of `hosts`.
        """
        check_address(request.url, hosts, loopback=self._loopback)
        session = self._session()
        host = urlsplit(request.url).hostname
        try:
            async with session.request(
                request.method, request.url, data=request.body or None, headers=request.headers, allow_redirects=False
            ) as response:
                body = await _bounded(response)
                headers = {name.lower(): text for name, text in response.headers.items()}
                return HttpAnswer(response.status, headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise NotSentError(f"{host} cannot be reached: {_why(error)}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # No cause is kept on purpose: the library's own words hold the address, which may be a secret.
            raise DoubtfulError(f"{host} did not answer: {_why(error)}") from None

    def _session(self) -> aiohttp.ClientSession:
        if self._kept is None:
            connector = aiohttp.TCPConnector(resolver=_Guarded(loopback=self._loopback), use_dns_cache=False)
            self._kept = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self._kept


class _Guarded(AbstractResolver):
    """Names become addresses, and private ones are refused: whoever answers for a name cannot lead us inside."""

    def __init__(self, *, loopback: bool) -> None:
        self._loopback = loopback
        self._inner = ThreadedResolver(loop=asyncio.get_running_loop())

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if not may_reach(one["host"], loopback=self._loopback):
                raise OSError(f"{host} leads to {one['host']}, which is no public address")
        return found

    async def close(self) -> None:
        await self._inner.close()


def may_reach(address: str, *, loopback: bool) -> bool:
    """Tell whether an address may be spoken to: a public one, or with `loopback` this machine and nothing else."""
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour
        if within is None and ip in _NAT64:
            within = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        ip = within if within is not None else ip
    if loopback:
        return ip.is_loopback
    return ip.is_global and not ip.is_multicast


def check_address(url: str, hosts: Sequence[str], *, loopback: bool) -> None:
    """Check that an address is one of a channel's, by TLS; with `loopback` one of this machine.

    Raises:
        InputError: it is not. The address itself is never shown: it may be a secret.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.username or parts.password:
        raise InputError(f"address at {host}", "holds a user", right="give credentials in a file of their own")
    if loopback:
        if host not in _LOOPBACK:
            raise InputError(f"address at {host}", "is not this machine", right="loopback: true allows nothing else")
        return
    if parts.scheme != "https":
        raise InputError(f"address at {host}", "is not https", right="pages and their secrets are sent encrypted")
    if not any(host.endswith(one) if one.startswith(".") else host == one for one in hosts):
        raise InputError(f"address at {host}", "is not the provider's", right=f"it is one of {', '.join(hosts)}")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            response.close()
            break
    return bytes(body[:ANSWER_BYTES_MAX])


def _why(error: BaseException) -> str:
    """Return what went wrong, without the library's words about the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name has no address that may be spoken to"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    inner = getattr(error, "os_error", None)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(error, TimeoutError):
        return "it took too long"
    return type(error).__name__
