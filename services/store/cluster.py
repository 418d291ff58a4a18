"""A Redis Cluster behind the methods of one server.

redis-py's RedisCluster knows the nodes and makes the connections (``with_redis_py``); what is asked
goes over our own wires, to whom ``routes`` says. Its own way of asking is not used: it sends a
command again whose reply was lost, and what is appended would stand there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import hiredis

from services.runtime import urls
from services.runtime.errors import RedisUnavailable
from services.runtime.urls import ClusterUrl
from services.store.blocking import Blocking, Pool
from services.store.connection import Listener, Wire, Wires
from services.store.replies import Command, classified, is_not_here
from services.store.routes import LOOK_S, Exchange, Routes, Sends
from services.store.with_redis_py import BlockingTopology, Topology

_LOST = (OSError, hiredis.ProtocolError, RedisUnavailable)


def _named(url: str) -> ClusterUrl:
    """The nodes to begin with; a plain URL names one of them."""
    named = urls.cluster(url) or urls.cluster(urls.cluster_of(url))
    assert named is not None
    return named


class Nodes:
    """The primaries of a Cluster, as Client uses the Wires of one server."""

    is_ready = False  # who serves a key may have to be looked up first

    def __init__(self, url: str, shown: str, home: str) -> None:
        self._shown, self._routes = shown, Routes(shown, home)
        self._topology = Topology(_named(url), shown)
        self._servers: dict[str, Wires] = {}
        self._looking = asyncio.Lock()

    @property
    def changes(self) -> int:
        for name in list(self._servers):
            self._drop_lost(name)
        return self._routes.changes

    @property
    def losses(self) -> int:
        """As Wires.losses, of any node."""
        return self.changes

    @property
    def primaries(self) -> tuple[str, ...]:
        return tuple(self._routes.primaries)

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """As Client.together."""
        return self._routes.together(keys)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As Wires.ask."""
        await self._current()
        return await self._run(self._routes.started(commands))

    async def block(
        self, commands: Sequence[Command], listener: Listener | None = None
    ) -> list[Any]:
        """As Wires.block."""
        await self._current()
        replies = await self._run(self._routes.exchange(commands), blocks=True)
        if listener is not None:
            listener(replies)
        return replies

    async def block_on_one(self, commands: Sequence[Command]) -> list[Any]:
        """As Client.block_on_one."""
        await self._current()
        node = self._routes.node_of(commands[0])
        replies = await self._asked(node, list(commands), blocks=True)
        for reply in filter(is_not_here, replies):
            self._routes.doubted()
            raise classified(self._shown, str(reply)) from reply
        return replies

    async def everywhere(self, command: Command) -> list[Any]:
        """The reply of each primary."""
        await self._current()
        names = self._routes.primaries
        replies = await self._sent({name: [command] for name in names})
        return [replies[name][0] for name in names]

    async def beside(self, key: str, command: Command) -> list[Any]:
        """The reply of the primary that holds ``key``."""
        await self._current()
        return await self._asked(self._routes.of_key(key), [command])

    async def messages(self, patterns: Sequence[str]) -> AsyncGenerator[Any]:
        """As Wires.messages, of every primary: a node tells of its own keys only. Ends with an
        error where others are primaries."""
        await self._current()
        changes, news = self._routes.changes, asyncio.Queue[Any]()

        async def heard(server: Wires) -> None:
            try:
                async for reply in server.messages(patterns):
                    news.put_nowait(reply)
            except _LOST as error:
                news.put_nowait(error)

        servers = [self._wires(name) for name in self._routes.primaries]
        tasks = [asyncio.ensure_future(heard(server)) for server in servers]
        try:
            while self.changes == changes:
                try:
                    reply = await asyncio.wait_for(news.get(), LOOK_S)
                except TimeoutError:
                    await self._current()
                    continue
                if isinstance(reply, _LOST):
                    raise reply
                yield reply
            raise ConnectionResetError("other nodes serve the keys now")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        while self._servers:
            self._servers.popitem()[1].close()

    # -- beneath ---------------------------------------------------------------------------------

    async def _current(self) -> None:
        """Look who serves what, where it is time to."""
        if not self._routes.due:
            return
        async with self._looking:
            if not self._routes.due:
                return
            if not self._routes.stale:
                slots = await self._home_says()
                if self._routes.is_known(slots):
                    return
            self._routes.learnt(await self._topology.look())
            for name in self._servers.keys() - self._routes.primaries:
                self._servers.pop(name).close()

    async def _home_says(self) -> Any:
        """Who serves what, as the home node has it: that costs less than to read it anew."""
        asked = ("CLUSTER", "SLOTS")
        return (await self._asked(self._routes.home, [asked]))[0]

    def _wires(self, name: str) -> Wires:
        self._drop_lost(name)
        server = self._servers.get(name)
        if server is None:

            async def opened() -> Wire:
                return Wire.taken_over(await self._topology.connection(name))

            server = self._servers[name] = Wires(opened)
        return server

    def _drop_lost(self, name: str) -> None:
        server = self._servers.get(name)
        if server is not None and server.was_lost:
            self._servers.pop(name).close()
            self._routes.doubted()

    async def _run(self, exchange: Exchange, *, blocks: bool = False) -> list[Any]:
        try:
            sends = next(exchange)
            while True:
                sends = exchange.send(await self._sent(sends, blocks=blocks))
        except StopIteration as ended:
            return ended.value

    async def _sent(self, sends: Sends, *, blocks: bool = False) -> dict[str, list[Any]]:
        if len(sends) == 1:
            ((name, commands),) = sends.items()
            return {name: await self._asked(name, commands, blocks)}
        asked = (self._asked(name, commands, blocks) for name, commands in sends.items())
        replies: dict[str, list[Any]] = {}
        answered = await asyncio.gather(*asked, return_exceptions=True)  # all are over then
        for name, reply in zip(sends, answered, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            replies[name] = reply
        return replies

    async def _asked(self, name: str, commands: list[Command], blocks: bool = False) -> list[Any]:
        try:
            wires = self._wires(name)
            ask = wires.block if blocks else wires.ask
            return await ask(commands)
        except _LOST:
            self._routes.doubted()
            raise


class BlockingNodes:
    """The primaries of a Cluster, as SyncClient uses the Pool of one server."""

    def __init__(self, url: str, shown: str, home: str) -> None:
        self._shown, self._routes = shown, Routes(shown, home)
        self._topology = BlockingTopology(_named(url), shown)
        self._servers: dict[str, Pool] = {}

    @property
    def primaries(self) -> tuple[str, ...]:
        return tuple(self._routes.primaries)

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """As Client.together."""
        return self._routes.together(keys)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As Pool.ask."""
        self._current()
        exchange = self._routes.started(commands)
        try:
            sends = next(exchange)
            while True:
                sends = exchange.send({name: self._asked(name, c) for name, c in sends.items()})
        except StopIteration as ended:
            return ended.value

    def everywhere(self, command: Command) -> list[Any]:
        """The reply of each primary."""
        self._current()
        return [self._asked(name, [command])[0] for name in self._routes.primaries]

    def chain(
        self, first: Sequence[Command], after: Callable[[list[Any]], Sequence[Command]]
    ) -> Iterator[list[Any]]:
        """As Pool.chain, of the node that serves the first one's key, on one connection: another
        node may know another past. Raises RedisUnavailable where it serves the key no more."""
        self._current()

        def following(replies: list[Any]) -> Sequence[Command]:
            for reply in filter(is_not_here, replies):
                self._routes.doubted()
                raise classified(self._shown, str(reply)) from reply
            return after(replies)

        try:
            yield from self._wires(self._routes.node_of(first[0])).chain(first, following)
        except (OSError, hiredis.ProtocolError):
            self._routes.doubted()
            raise

    def connected(self) -> Blocking:
        """A connection to the home node that nobody else has."""
        self._current()
        return self._wires(self._routes.home).connected()

    def close(self) -> None:
        while self._servers:
            self._servers.popitem()[1].close()

    def _current(self) -> None:
        if self._routes.due:
            self._routes.learnt(self._topology.look())

    def _wires(self, name: str) -> Pool:
        def opened() -> Blocking:
            return Blocking.taken_over(self._topology.connection(name))

        return self._servers.setdefault(name, Pool(opened))

    def _asked(self, name: str, commands: list[Command]) -> list[Any]:
        try:
            return self._wires(name).ask(commands)
        except _LOST:
            self._routes.doubted()
            raise
