"""One connection to Redis on which a request costs one write and one wake-up.

redis-py makes the connection (URL, login, TLS); then its streams give way to this protocol, which
feeds hiredis as bytes come in. Any number of requests may be under way; replies come in order.
Against redis-py's own reading it saves two passes through the event loop per reply, which is what
stands between submission and start (`make bench`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

import hiredis

_hiredis: Any = hiredis


class Wire(asyncio.Protocol):
    """Requests out, replies back in order. Closed for good once anything goes wrong: a late reply
    must never answer another request."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection  # kept: its streams would close the transport when collected
        self._transport: Any = connection._writer.transport
        self._loop = asyncio.get_running_loop()
        self._reader: Any = _hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], int, float]] = deque()
        self._replies: list[Any] = []
        self._alarm: asyncio.TimerHandle | None = None
        self.is_open = True
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, pool: Any) -> Wire:
        """A new connection of redis-py's ``pool``. Raises what redis-py raises."""
        connection = pool.make_connection()
        await connection.connect()
        return cls(connection)

    def ask(self, packed: bytes, count: int, within: float = math.inf) -> asyncio.Future[list[Any]]:
        """Write ``packed``; its ``count`` replies come as a list, errors in it as values.

        Raises ConnectionError when the connection is lost or nothing comes ``within`` seconds.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            future.set_exception(ConnectionResetError("the connection is closed"))
            return future
        due = self._loop.time() + within
        self._waiting.append((future, count, due))
        if self._alarm is None and due < math.inf:
            self._alarm = self._loop.call_at(due, self._look)
        self._transport.write(packed)
        return future

    def close(self, error: Exception | None = None) -> None:
        """End it; whoever waits is told."""
        self._transport.abort()
        self.connection_lost(error)

    def _look(self) -> None:
        """One alarm watches the oldest request; it is set again while requests are under way."""
        self._alarm = None
        due = self._waiting[0][2] if self._waiting else math.inf
        if due <= self._loop.time():
            self.close(ConnectionResetError("no answer in time"))
        elif due < math.inf:
            self._alarm = self._loop.call_at(due, self._look)

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._arrived(reply)
        except hiredis.ProtocolError as error:
            self.close(ConnectionResetError(str(error)))

    def _arrived(self, reply: Any) -> None:
        replies = self._replies
        replies.append(reply)
        if len(replies) < self._waiting[0][1]:
            return
        future = self._waiting.popleft()[0]
        self._replies = []
        if not future.done():
            future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._connection._reader = self._connection._writer = None
        if self._alarm is not None:
            self._alarm.cancel()
        while self._waiting:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the connection was closed"))
