"""The one place that talks to Redis.

Replies come back raw (bytes, ints, lists): decoding once, where the meaning is known, is what
makes replay fast. Connections are plain sockets with hiredis on them; redis-py makes those that
need more (``with_redis_py``). Where the server is a node of a Cluster, its nodes are behind the
same methods (``cluster``).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import hiredis

from events.keys import Keys
from services.runtime import urls
from services.runtime.errors import CommandRefused
from services.runtime.urls import redacted
from services.store.blocking import Blocking, Pool
from services.store.replies import (
    HELLO,
    Command,
    Word,
    classified,
    is_cluster,
    is_wrong_type,
    key_of,
    name_of,
    no_answer,
    packed,
    wrong_type,
)

if TYPE_CHECKING:
    from services.store.cluster import BlockingNodes, Nodes
    from services.store.connection import Wires

SCAN_COUNT = 1_000
HOME = Keys().log


@contextmanager
def _answered(shown: str) -> Generator[None]:
    """Turn what a connection raises into our error."""
    try:
        yield
    except (OSError, hiredis.ProtocolError) as error:
        raise no_answer(shown, error) from error


class Client:
    """An asyncio client with raw replies: one wire to a server for commands, which share it in
    order, and one for each that may block."""

    def __init__(self, url: str, home: str = HOME) -> None:
        """``home``: on a Cluster, commands without a key go to the node that holds this one."""
        self.url = url
        self.shown = redacted(url)
        self._home = home
        import asyncio  # only here: who makes blocking calls starts 20 ms earlier without it

        self._reaching = asyncio.Lock()
        self._servers: Wires | Nodes | None = None

    async def call(self, *command: Word) -> Any:
        """One command; its raw reply.

        Raises RedisUnavailable, RedisUnsuitable or, for an error that is about this very
        command, CommandRefused. After RedisUnavailable the outcome is unknown.
        """
        (reply,) = await self._ask((command,))
        if isinstance(reply, Exception):
            raise await self._error(command, reply) from reply
        return reply

    async def types(self, keys: Iterable[Word]) -> dict[str, str]:
        """The type of each key that is there."""
        names = [name_of(key) for key in keys]
        kinds = await self.all(("TYPE", name) for name in names)
        pairs = zip(names, kinds, strict=True)
        return {name: kind.decode() for name, kind in pairs if kind != b"none"}

    async def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Many commands in one round trip, not a transaction. A refused one yields its
        CommandRefused in place; only a lost connection raises."""
        asked = [tuple(command) for command in commands]
        replies = await self._ask(asked) if asked else []
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    async def all(self, commands: Iterable[Command]) -> list[Any]:
        """As ``pipeline``, for reads that need every answer: a refused one raises as ``call``."""
        asked = [tuple(command) for command in commands]
        replies = await self.pipeline(asked)
        return await self._checked(asked, replies)

    @property
    def is_ready(self) -> bool:
        """Whether a command is written at once, with no wait for a connection."""
        return self._servers is not None and self._servers.is_ready

    async def block(self, *command: Word, listener: Callable[[Any], None] | None = None) -> Any:
        """A command that may block (``XREAD … BLOCK``) on a connection of its own. A ``listener``
        has the reply as soon as it is read, before whoever awaits it. Raises as ``call``, and what
        ``listener`` raises."""

        def arrived(replies: list[Any]) -> None:
            if listener is not None and not isinstance(replies[0], Exception):
                listener(replies[0])

        with _answered(self.shown):
            servers = self._servers or await self._reached()
            replies = await servers.block((command,), listener=arrived)
        return (await self._checked((command,), replies))[0]

    async def block_on_one(self, *commands: Command) -> list[Any]:
        """As ``block``, for several commands about keys of one slot, the last of which may block:
        all are answered on one connection, that is, of one past. Raises RedisUnavailable where
        another node of a Cluster takes over meanwhile."""
        with _answered(self.shown):
            servers = self._servers or await self._reached()
            replies = await servers.block_on_one(commands)
        return await self._checked(commands, replies)

    async def everywhere(self, *command: Word) -> list[Any]:
        """The reply of every server that holds a part of the keys, in a fixed order; of one, unless
        this is a Cluster. Raises as ``call``."""
        with _answered(self.shown):
            servers = self._servers or await self._reached()
            replies = await servers.everywhere(command)
        return await self._checked([command] * len(replies), replies)

    async def beside(self, key: str, *command: Word) -> Any:
        """As ``call``, for a command without a key: the server that holds ``key`` is asked."""
        with _answered(self.shown):
            servers = self._servers or await self._reached()
            replies = await servers.beside(key, command)
        return (await self._checked((command,), replies))[0]

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """The keys, grouped by what one command may name."""
        return [list(keys)] if self._servers is None else self._servers.together(keys)

    @property
    def primaries(self) -> tuple[str, ...]:
        """The nodes that hold the keys, as ``host:port``, where this is a Cluster."""
        return () if self._servers is None else self._servers.primaries

    @property
    def changes(self) -> int:
        """Grows where a server was lost or replaced, also where nobody asked it just then: what it
        had acknowledged last may be gone."""
        return 0 if self._servers is None else self._servers.changes

    @property
    def losses(self) -> int:
        """As ``changes``, of one server, too: grows with every connection that was made again."""
        return 0 if self._servers is None else self._servers.losses

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        with _answered(self.shown):
            servers = self._servers or await self._reached()
            return await servers.ask(commands)

    async def _reached(self) -> Wires | Nodes:
        """Who answers at our URL: one server, or the nodes of a Cluster."""
        async with self._reaching:
            if self._servers is None:
                self._servers = await self._first_reached()
            return self._servers

    async def _first_reached(self) -> Wires | Nodes:
        from services.store.connection import Wire, Wires

        opened = partial(Wire.open, self.url, self.shown)
        wire = None
        if urls.cluster(self.url) is None:
            wire = await opened()
            if not _may_be_cluster(self.url):
                return Wires(opened, wire)
            try:
                (hello,) = await wire.ask(packed([HELLO]), 1)
            except BaseException:
                wire.close()
                raise
            if not is_cluster(hello):
                return Wires(opened, wire)
            wire.close()
        from services.store import cluster

        return cluster.Nodes(self.url, self.shown, self._home)

    async def _checked(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """The replies, if none is an error."""
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise await self._error(command, reply) from reply
        return replies

    async def _error(self, command: Command, reply: Exception) -> Exception:
        """Ours for what was answered to ``command``."""
        if is_wrong_type(command, reply):
            return wrong_type(await self.types((key_of(command),)))
        return classified(self.shown, str(reply))

    async def messages(self, *patterns: str) -> AsyncGenerator[list[Any]]:
        """What is published on channels like ``patterns``, as Redis sends it; first its word on
        each that they are listened to, of every server. Raises as ``call``, also when a connection
        is lost."""
        with _answered(self.shown):
            heard = (self._servers or await self._reached()).messages(patterns)
            async with contextlib.aclosing(heard):
                async for reply in heard:
                    if isinstance(reply, Exception):
                        raise classified(self.shown, str(reply)) from reply
                    yield reply

    async def close(self) -> None:
        if self._servers is not None:
            self._servers.close()
        self._servers = None


def _may_be_cluster(url: str) -> bool:
    """Whether a node of a Cluster may answer at ``url``: none is behind Sentinel or a socket."""
    return urls.sentinel(url) is None and not url.startswith("unix")


class SyncClient:
    """The same with blocking calls: for the CLI, bulk submission and replay. Threads may share it:
    each call has a connection to itself."""

    def __init__(self, url: str, home: str = HOME) -> None:
        """As Client."""
        self.url = url
        self.shown = redacted(url)
        self._home = home
        self._servers: Pool | BlockingNodes | None = None

    def call(self, *command: Word) -> Any:
        """As Client.call."""
        (reply,) = self._ask((command,))
        return self._checked(command, reply)

    def chain(
        self, first: Sequence[Command], after: Callable[[list[Any]], Sequence[Command]]
    ) -> Iterator[list[Any]]:
        """The replies to the commands ``first``, and to those that follow ``after`` replies, as
        long as there are any. These are under way while the caller works on the replies before. All
        are about keys of one slot. Raises as ``call``."""
        asked = first

        def following(replies: list[Any]) -> Sequence[Command]:
            nonlocal asked
            pairs = zip(asked, replies, strict=True)
            asked = after([self._checked(command, reply) for command, reply in pairs])
            return asked

        with _answered(self.shown):
            yield from (self._servers or self._reached()).chain(first, following)

    def _checked(self, command: Command, reply: Any) -> Any:
        if not isinstance(reply, Exception):
            return reply
        if is_wrong_type(command, reply):
            key = key_of(command)
            raise wrong_type({name_of(key): self.call("TYPE", key).decode()}) from reply
        raise classified(self.shown, str(reply)) from reply

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """As Client.pipeline."""
        asked = [tuple(command) for command in commands]
        replies = self._ask(asked) if asked else []
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    def everywhere(self, *command: Word) -> list[Any]:
        """As Client.everywhere."""
        with _answered(self.shown):
            replies = (self._servers or self._reached()).everywhere(command)
        return [self._checked(command, reply) for reply in replies]

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """As Client.together."""
        with _answered(self.shown):
            return (self._servers or self._reached()).together(keys)

    @property
    def primaries(self) -> tuple[str, ...]:
        """As Client.primaries."""
        return () if self._servers is None else self._servers.primaries

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
        asked = packed([("PSUBSCRIBE" if pattern else "SUBSCRIBE", channel)])
        with _answered(self.shown):
            connection = (self._servers or self._reached()).connected()
            try:
                (reply,) = connection.ask(asked, 1)
                while True:
                    if isinstance(reply, Exception):
                        raise classified(self.shown, str(reply)) from reply
                    yield reply
                    reply = connection.next_pushed()
            finally:
                connection.close()

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        with _answered(self.shown):
            return (self._servers or self._reached()).ask(commands)

    def _reached(self) -> Pool | BlockingNodes:
        """As Client: threads that come at the same time may each find out."""
        if urls.cluster(self.url) is None:
            connection = self._opened()
            try:
                is_one = not _may_be_cluster(self.url) or not is_cluster(
                    *connection.ask(packed([HELLO]), 1)
                )
            except BaseException:
                connection.close()
                raise
            if is_one:
                self._servers = Pool(self._opened, connection)
                return self._servers
            connection.close()
        from services.store import cluster

        self._servers = cluster.BlockingNodes(self.url, self.shown, self._home)
        return self._servers

    def _opened(self) -> Blocking:
        return Blocking.open(self.url, self.shown)

    def close(self) -> None:
        if self._servers is not None:
            self._servers.close()
