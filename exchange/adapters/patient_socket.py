"""WebSockets that are really gone when they are over, and that tell why: uvicorn's own, extended.

Apart from `patience`, so that only those who serve WebSockets need the library.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from exchange.adapters.patience import CLOSE_S

HEARTBEAT_MISSED: Final = "heartbeat missed"


class PatientSocket(WebSocketsSansIOProtocol):
    """A WebSocket that is really gone when it is over: a client that reads nothing holds nothing."""

    def keepalive_timeout(self) -> None:
        """Tell the application why, then end."""
        if not (self.close_sent or self.transport.is_closing()):
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1011, "reason": HEARTBEAT_MISSED})
        super().keepalive_timeout()
        self._gone_soon()

    async def run_asgi(self) -> None:
        """Serve the application; whatever it left unsent is given a moment."""
        try:
            await super().run_asgi()
        finally:
            self._gone_soon()

    def _gone_soon(self) -> None:
        self.loop.call_later(CLOSE_S, self.transport.abort)
