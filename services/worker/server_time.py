"""The server's clock, as a worker knows it."""

from __future__ import annotations

import asyncio

import anyio

from services.runtime.errors import RedisUnavailable
from services.store.client import Client
from services.worker.lease import RETRY_S


class ServerTime:
    """``ahead``: the server's time (s since the epoch) minus the loop's clock; 0 until it is
    known."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self.ahead = 0.0

    def now(self) -> float:
        """The server's time, s."""
        return self._loop.time() + self.ahead

    async def read(self) -> None:
        """Ask the server. Raises RedisUnavailable."""
        before = self._loop.time()
        seconds, micros = await self._client.call("TIME")
        middle = (before + self._loop.time()) / 2
        self.ahead = int(seconds) + int(micros) / 1e6 - middle

    async def known(self, *, again: bool = False) -> None:
        """Return when it is known, read ``again`` or not: a deadline means nothing before."""
        self.ahead = 0.0 if again else self.ahead
        while not self.ahead:
            try:
                await self.read()
            except RedisUnavailable:
                await anyio.sleep(RETRY_S)
