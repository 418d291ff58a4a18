"""One connection to Redis on which a request costs one write and one wake-up.

It feeds hiredis as bytes come in. Any number of requests may be under way; replies come in order.
Against redis-py's own reading it saves two passes through the event loop per reply, which is what
stands between submission and start (`make bench`). Where redis-py made the connection, its streams
give way to this protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import hiredis

from services.store import address
from services.store.address import CONNECT_SECONDS, SILENCE_SECONDS, Address
from services.store.replies import (
    PING,
    Command,
    has_changed_role,
    limit_of,
    packed,
    refused_opening,
)

_hiredis: Any = hiredis
Listener: TypeAlias = Callable[[list[Any]], None]


class _Pending(NamedTuple):
    answer: asyncio.Future[list[Any]]
    replies: int
    asked_at: float
    within: float  # seconds of silence until the connection is given up
    listener: Listener | None


class Wire(asyncio.Protocol):
    """Requests out, replies back in order. Closed for good once anything goes wrong: a late reply
    must never answer another request."""

    def __init__(self, maker: Any = None) -> None:
        self._maker = maker  # redis-py's connection: its streams would close ours when collected
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._reader: Any = _hiredis.Reader()
        self._waiting: deque[_Pending] = deque()
        self._replies: list[Any] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._moved_at = 0.0  # when the last byte came, or was seen to have gone
        self._unsent = 0
        self._is_pinged = False
        self.is_open = True
        self.listens = False  # to channels: then more comes than was asked for

    @classmethod
    async def open(cls, url: str, shown: str) -> Wire:
        """Connect and log in. Raises OSError, RedisUnavailable and RedisUnsuitable."""
        place = address.plain(url)
        if place is None:
            from services.store import with_redis_py

            return cls.taken_over(await with_redis_py.asynchronous(url, shown))
        wire = cls()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if place.path:
                await loop.create_unix_connection(lambda: wire, place.path)
            else:
                await loop.create_connection(lambda: wire, place.host, place.port)
        try:
            await wire._begin(place, shown)
        except BaseException:
            wire.close()
            raise
        return wire

    @classmethod
    def taken_over(cls, connection: Any) -> Wire:
        """The socket of a connection that redis-py made."""
        wire = cls(connection)
        wire.connection_made(connection._writer.transport)
        connection._writer.transport.set_protocol(wire)
        return wire

    async def _begin(self, place: Address, shown: str) -> None:
        for command in place.opening:
            (reply,) = await self.ask(packed([command]), 1)
            if isinstance(reply, Exception):
                raise refused_opening(shown, command, str(reply))

    async def next_pushed(self) -> Any:
        """The next reply that nobody asked for: a message, where channels are listened to. Who has
        none for long is asked whether he is there."""
        while True:
            kept = self._replies and not self._waiting
            reply = self._replies.pop(0) if kept else (await self.ask(b"", 1))[0]
            if isinstance(reply, Exception) or reply[0] != b"pong":
                return reply

    def ask(
        self,
        packed: bytes,
        count: int,
        within: float = SILENCE_SECONDS,
        listener: Listener | None = None,
    ) -> asyncio.Future[list[Any]]:
        """Write ``packed``; its ``count`` replies come as a list, errors in it as values. A
        ``listener`` has them as soon as they are read, before whoever awaits them; what it raises
        he gets.

        Raises OSError when the connection is lost or nothing moves ``within`` seconds.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            future.set_exception(ConnectionResetError("the connection is closed"))
            return future
        now = self._loop.time()
        self._waiting.append(_Pending(future, count, now, within, listener))
        if self._alarm is None:
            self._alarm = self._loop.call_at(now + within, self._look)
        if packed:
            self._transport.write(packed)
        return future

    def close(self, error: Exception | None = None) -> None:
        """End it; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(error)

    def _look(self) -> None:
        """One alarm watches the oldest request; it is set again while requests are under way."""
        self._alarm = None
        if not self._waiting:
            return
        now, unsent = self._loop.time(), self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._moved_at, self._unsent = now, unsent
        request = self._waiting[0]
        due = max(request.asked_at, self._moved_at) + request.within
        if due <= now and (self._is_pinged or not self.listens):
            self.close(TimeoutError("no answer in time"))
            return
        if due <= now:
            self._is_pinged, due = True, now + request.within
            self._transport.write(packed([PING]))
        self._alarm = self._loop.call_at(due, self._look)

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        self._moved_at, self._is_pinged = self._loop.time(), False
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._arrived(reply)
        except hiredis.ProtocolError as error:
            self.close(ConnectionResetError(str(error)))

    def _arrived(self, reply: Any) -> None:
        replies = self._replies
        replies.append(reply)
        if isinstance(reply, hiredis.ReplyError) and has_changed_role(reply):
            self.is_open = False  # for new requests: a new connection may lead to the primary
        if not self._waiting:
            if not self.listens:
                self.close(ConnectionResetError("an answer that nobody asked for"))
            return
        if len(replies) < self._waiting[0].replies:
            return
        request = self._waiting.popleft()
        self._replies = []
        if not request.answer.done():
            _answer(request.answer, replies, request.listener)
        if not self.is_open and not self._waiting:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._maker is not None:
            self._maker._reader = self._maker._writer = None
        if self._alarm is not None:
            self._alarm.cancel()
        while self._waiting:
            future = self._waiting.popleft().answer
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the connection was closed"))


def _answer(
    future: asyncio.Future[list[Any]], replies: list[Any], listener: Listener | None
) -> None:
    try:
        if listener is not None:
            listener(replies)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(replies)


class Wires:
    """The wires to one server: one that requests share, in order, and one for each that may block.
    ``opened`` makes them."""

    changes = 0  # a server is not replaced without its connection being lost
    primaries: tuple[str, ...] = ()  # they have names in a Cluster alone

    def __init__(self, opened: Callable[[], Awaitable[Wire]], wire: Wire | None = None) -> None:
        """``wire``: one that is there already."""
        self._opened, self._wire = opened, wire
        self._connecting = asyncio.Lock()
        self._idle: list[Wire] = []  # for commands that block
        self.losses = 0  # how often it was connected, and then was no more

    @property
    def is_ready(self) -> bool:
        """Whether what is asked is written at once."""
        return self._wire is not None and self._wire.is_open

    @property
    def was_lost(self) -> bool:
        """Whether it was connected, and is no more."""
        return self._wire is not None and not self._wire.is_open

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to ``commands``, errors as values. Raises OSError and hiredis.ProtocolError
        where the connection is lost or nothing comes, and as ``Wire.open``."""
        wire = self._wire
        if wire is None or not wire.is_open:
            wire = await self._connected()
        return await wire.ask(packed(commands), len(commands), limit_of(commands))

    async def _connected(self) -> Wire:
        async with self._connecting:
            if self._wire is None or not self._wire.is_open:
                self.losses += self._wire is not None
                self._wire = await self._opened()
            return self._wire

    async def block(
        self, commands: Sequence[Command], listener: Listener | None = None
    ) -> list[Any]:
        """As ``ask``, on a connection of its own: the last of ``commands`` may block. For a
        ``listener`` see ``Wire.ask``."""
        wire = self._idle.pop() if self._idle else None
        if wire is None or not wire.is_open:
            wire = await self._opened()
        try:
            asked, limit = packed(commands), limit_of(commands)
            replies = await wire.ask(asked, len(commands), limit, listener)
        except BaseException:
            wire.close()  # the command may still be under way, for nobody
            raise
        self._idle.append(wire)
        return replies

    async def block_on_one(self, commands: Sequence[Command]) -> list[Any]:
        """As Client.block_on_one."""
        return await self.block(commands)

    async def everywhere(self, command: Command) -> list[Any]:
        """As Client.everywhere."""
        return await self.ask((command,))

    async def beside(self, _key: str, command: Command) -> list[Any]:
        """As Client.beside."""
        return await self.ask((command,))

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """As Client.together."""
        return [list(keys)]

    async def messages(self, patterns: Sequence[str]) -> AsyncGenerator[Any]:
        """What is published on channels like ``patterns``. Raises as ``ask``."""
        wire = await self._opened()
        try:
            wire.listens = True
            asked = packed([("PSUBSCRIBE", *patterns)])
            for reply in await wire.ask(asked, len(patterns)):
                yield reply
            while True:
                yield await wire.next_pushed()
        finally:
            wire.close()

    def close(self) -> None:
        for wire in (self._wire, *self._idle):
            if wire is not None:
                wire.close()
        self._wire, self._idle = None, []
