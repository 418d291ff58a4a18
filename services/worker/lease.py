"""A worker's heartbeat, and how long it may go on without one.

``asb:worker:<name>`` stays for half a lease; when it was gone for another half the engine gives the
worker up. So a lease runs from the last renewal, and everything has to be over before it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio

from events.worker import WorkerHeartbeat
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.client import Client
from services.worker.task import WorkerOptions

log = logging.getLogger("asb.worker")

RETRY_S = 0.5


class Lease:
    """That of one session. ``began`` is when it was asked for, on the loop's clock.

    ``replaces``: what stands under the key may be overwritten. Else that is a worker of the same
    name, perhaps a living one: the key is left alone until it is gone, or until ``accepted``.
    """

    def __init__(
        self,
        options: WorkerOptions,
        client: Client,
        key: str,
        mine: WorkerHeartbeat,
        *,
        began: float,
        replaces: bool,
    ) -> None:
        self._options, self._client, self._key = options, client, key
        self.session = mine.session
        self._value = mine.value
        self._renewed = began
        self._replaces = replaces
        self._beat = min(options.heartbeat_s, options.lease_s / 3)  # it stays for half a lease
        self._loop = asyncio.get_running_loop()
        self._tell_driver()

    @property
    def last_moment(self) -> float:
        """When ending must begin, on the loop's clock: early enough to be over before the lease."""
        lease = self._options.lease_s
        return self._renewed + lease - min(10.0, lease / 4)

    def accepted(self) -> None:
        """The engine has given this session work: the name is ours, whatever stands there."""
        self._replaces = True

    def _tell_driver(self) -> None:
        self._options.driver.renewed(self.last_moment, self._renewed + self._options.lease_s)

    async def keep(self, afterwards: Callable[[], Awaitable[None]]) -> None:
        """Renew it, with ``afterwards`` each time; returns when it could not be for too long.

        Raises AsbError when the key cannot be written at all.
        """
        quiet = False  # one warning an outage
        while True:
            began = self._loop.time()
            if began >= self.last_moment:
                return
            pause = min(RETRY_S, self._beat)
            try:
                with anyio.fail_after(self.last_moment - began):
                    if await self._show():
                        self._renewed = began  # from when it was asked for, at worst
                        self._tell_driver()
                        pause = self._beat
                    await afterwards()
                quiet = False
            except (RedisUnavailable, TimeoutError) as error:
                if not quiet:
                    reason = str(error).partition("\n")[0] or "Redis does not answer"
                    log.warning("the lease cannot be renewed: %s", reason)
                quiet = True
            await anyio.sleep(max(0.0, min(began + pause, self.last_moment) - self._loop.time()))

    async def _show(self) -> bool:
        """Write the heartbeat; False where another worker's stands."""
        half = max(1, self._options.lease_s * 500)
        only = () if self._replaces else ("NX",)
        try:
            done = await self._client.call("SET", self._key, self._value, "PX", half, *only)
        except CommandRefused as error:
            raise AsbError(
                f"the heartbeat cannot be written: {error}", hint=f"look at the key {self._key}"
            ) from error
        self._replaces = self._replaces or done is not None
        return done is not None

    async def take_down(self) -> None:
        """Remove the heartbeat if it is ours: nobody need wait for its end.
        Raises RedisUnavailable."""
        if await self._client.call("GET", self._key) == self._value.encode():
            await self._client.call("DEL", self._key)


async def holder_of(client: Client, key: str) -> WorkerHeartbeat | None:
    """Whose heartbeat stands there; None for nobody's. Raises RedisUnavailable."""
    try:
        value = await client.call("GET", key)
    except CommandRefused:
        return None  # something else than a text: it gives way
    return None if value is None else WorkerHeartbeat.read(value)
