"""The one place that talks to Redis.

Replies come back raw (bytes, ints, lists): decoding once, where the meaning is known, is what
makes replay fast. Connections are plain sockets with hiredis on them; redis-py makes those that
need more (``with_redis_py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import hiredis

from services.runtime.errors import CommandRefused
from services.runtime.urls import redacted
from services.store.blocking import REPLY_SECONDS, Blocking
from services.store.connection import Wire
from services.store.replies import (
    Command,
    Word,
    classified,
    is_wrong_type,
    key_of,
    name_of,
    no_answer,
    wrong_type,
)

_hiredis: Any = hiredis
SCAN_COUNT = 1_000


@contextmanager
def _answered(shown: str) -> Generator[None]:
    """Turn what a connection raises into our error."""
    try:
        yield
    except (OSError, hiredis.ProtocolError) as error:
        raise no_answer(shown, error) from error


class Client:
    """An asyncio client with raw replies: one wire for commands, which share it in order, and one
    for each that may block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = redacted(url)
        self._connecting = asyncio.Lock()
        self._wire: Wire | None = None
        self._idle: list[Wire] = []  # for commands that block

    async def call(self, *command: Word) -> Any:
        """One command; its raw reply.

        Raises RedisUnavailable, RedisUnsuitable or, for an error that is about this very
        command, CommandRefused. After RedisUnavailable the outcome is unknown.
        """
        reply = (await self._ask(_hiredis.pack_command(command), 1))[0]
        if isinstance(reply, Exception) and is_wrong_type(command, reply):
            raise wrong_type(await self.types((key_of(command),))) from reply
        return self._checked(reply)

    async def types(self, keys: Iterable[Word]) -> dict[str, str]:
        """The type of each key that is there."""
        names = [name_of(key) for key in keys]
        kinds = await self.all(("TYPE", name) for name in names)
        pairs = zip(names, kinds, strict=True)
        return {name: kind.decode() for name, kind in pairs if kind != b"none"}

    async def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Many commands in one round trip, not a transaction. A refused one yields its
        CommandRefused in place; only a lost connection raises."""
        packed: list[bytes] = [_hiredis.pack_command(tuple(command)) for command in commands]
        if not packed:
            return []
        replies = await self._ask(b"".join(packed), len(packed))
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    async def all(self, commands: Iterable[Command]) -> list[Any]:
        """As ``pipeline``, for reads that need every answer: a refused one raises as ``call``."""
        asked = [tuple(command) for command in commands]
        replies = await self.pipeline(asked)
        for command, reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception) and is_wrong_type(command, reply):
                raise wrong_type(await self.types((key_of(command),))) from reply
        return [self._checked(reply) for reply in replies]

    async def block(self, *command: Word) -> Any:
        """A command that may block (``XREAD … BLOCK``) on a connection of its own, for less than
        ``REPLY_SECONDS``. Raises as ``call``."""
        with _answered(self.shown):
            wire = self._idle.pop() if self._idle else None
            if wire is None or not wire.is_open:
                wire = await Wire.open(self.url, self.shown)
            try:
                reply = (await wire.ask(_hiredis.pack_command(command), 1, REPLY_SECONDS))[0]
            except BaseException:
                wire.close()  # the command may still be under way, for nobody
                raise
        self._idle.append(wire)
        if isinstance(reply, Exception) and is_wrong_type(command, reply):
            raise wrong_type(await self.types((key_of(command),))) from reply
        return self._checked(reply)

    async def _ask(self, packed: bytes, count: int) -> list[Any]:
        with _answered(self.shown):
            wire = self._wire
            if wire is None or not wire.is_open:
                wire = await self._connected()
            return await wire.ask(packed, count, REPLY_SECONDS)

    async def _connected(self) -> Wire:
        async with self._connecting:
            if self._wire is None or not self._wire.is_open:
                self._wire = await Wire.open(self.url, self.shown)
            return self._wire

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, Exception):
            raise classified(self.shown, str(reply)) from reply
        return reply

    async def messages(self, *patterns: str) -> AsyncGenerator[list[Any]]:
        """What is published on channels like ``patterns``, as Redis sends it; first its word on
        each that they are listened to. Raises as ``call``, also when the connection is lost."""
        with _answered(self.shown):
            wire = await Wire.open(self.url, self.shown)
            try:
                wire.listens = True
                asked = _hiredis.pack_command(("PSUBSCRIBE", *patterns))
                for reply in await wire.ask(asked, len(patterns), REPLY_SECONDS):
                    yield self._checked(reply)
                while True:
                    yield self._checked(await wire.next_pushed())
            finally:
                wire.close()

    async def close(self) -> None:
        for wire in (self._wire, *self._idle):
            if wire is not None:
                wire.close()
        self._wire, self._idle = None, []


class SyncClient:
    """The same with blocking calls: for the CLI, bulk submission and replay. Threads may share it:
    each call has a connection to itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = redacted(url)
        self._idle: list[Blocking] = []

    def call(self, *command: Word) -> Any:
        """As Client.call."""
        (reply,) = self._ask(_hiredis.pack_command(command), 1)
        return self._checked(command, reply)

    def chain(self, first: Command, after: Callable[[Any], Command | None]) -> Iterator[Any]:
        """The reply to ``first`` and to each command that follows ``after`` a reply, None for none.
        A command is under way while the caller works on the reply before it. Raises as ``call``."""
        command: Command | None = first
        connection, awaited = self._connected(), True
        try:
            with _answered(self.shown):
                connection.send(_hiredis.pack_command(tuple(first)))
            while command is not None:
                with _answered(self.shown):
                    raw = connection.receive()
                awaited = False
                reply = self._checked(command, raw)
                command = after(reply)
                if command is not None:
                    awaited = True
                    with _answered(self.shown):
                        connection.send(_hiredis.pack_command(tuple(command)))
                yield reply
        finally:
            if awaited:  # its reply is for nobody
                connection.close()
            else:
                self._idle.append(connection)

    def _checked(self, command: Command, reply: Any) -> Any:
        if not isinstance(reply, Exception):
            return reply
        if is_wrong_type(command, reply):
            key = key_of(command)
            raise wrong_type({name_of(key): self.call("TYPE", key).decode()}) from reply
        raise classified(self.shown, str(reply)) from reply

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """As Client.pipeline."""
        packed: list[bytes] = [_hiredis.pack_command(tuple(command)) for command in commands]
        if not packed:
            return []
        replies = self._ask(b"".join(packed), len(packed))
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    def scan(self, pattern: str, kind: str = "") -> Iterator[bytes]:
        """The keys that are like ``pattern``, of one type where that is named; a key may come more
        than once."""
        cursor, of_kind = b"0", ("TYPE", kind) if kind else ()
        while True:
            cursor, keys = self.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, *of_kind
            )
            yield from keys
            if cursor == b"0":
                return

    def messages(self, channel: str, *, pattern: bool = False) -> Generator[list[Any]]:
        """What is published on ``channel``, or on all like the ``pattern``, as Redis sends it;
        first its word that we listen. Raises as ``call``, also when the connection is lost."""
        asked = _hiredis.pack_command(("PSUBSCRIBE" if pattern else "SUBSCRIBE", channel))
        with _answered(self.shown):
            connection = Blocking.open(self.url, self.shown)
            try:
                (reply,) = connection.ask(asked, 1)
                while True:
                    if isinstance(reply, Exception):
                        raise classified(self.shown, str(reply)) from reply
                    yield reply
                    (reply,) = connection.ask(b"", 1, within=None)
            finally:
                connection.close()

    def _ask(self, packed: bytes, count: int) -> list[Any]:
        connection = self._connected()
        try:
            with _answered(self.shown):
                replies = connection.ask(packed, count)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return replies

    def _connected(self) -> Blocking:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return Blocking.open(self.url, self.shown)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
