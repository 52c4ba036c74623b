"""A client keeps its connections, but no addresses."""

from __future__ import annotations

import asyncio

from kernel.adapters.http_client import HttpClient


async def serve(host, port, word):
    """Answer every request with `word` and close."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(word)}\r\nConnection: close\r\n\r\n{word}".encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port)


async def test_a_server_that_was_replaced_is_found_at_its_new_address_at_once(monkeypatch):
    loop = asyncio.get_running_loop()
    resolve, known = loop.getaddrinfo, {}

    async def resolve_from_table(host, *rest, **more):
        return await resolve(known[host], *rest, **more)

    old = await serve("127.0.0.8", 0, "old")
    port = old.sockets[0].getsockname()[1]
    new = await serve("127.0.0.9", port, "new")
    monkeypatch.setattr(loop, "getaddrinfo", resolve_from_table)
    async with old, new, HttpClient(f"http://engine.exchange.svc:{port}", timeout_s=5.0) as client:
        words = []
        for address in ("127.0.0.8", "127.0.0.9"):
            known["engine.exchange.svc"] = address
            async with client._session.get(client._url) as answer:
                words.append(await answer.text())
    assert words == ["old", "new"]
