"""Work that Redis refuses: it holds, says so once, and goes on when the cause is gone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from events.keys import Keys
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.client import Client
from services.store.replies import WRONG_TYPE, WRONG_TYPE_HINT

RETRY_S = (0.05, 2.0)  # first and longest pause while Redis is away
logger = logging.getLogger("asb")


Work = Callable[[], Awaitable[None]]


def name_of(work: Work) -> str:
    """What a person calls the work of a method: the service, or the part of the host."""
    owner = getattr(work, "__self__", None)
    part = getattr(work, "__name__", "work").strip("_").replace("_", " ")
    return part if part != "run" else type(owner).__name__


class Trouble:
    """Which parts of a host hold, and why. The rest of the bus runs on."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self.holding: dict[str, str] = {}

    @property
    def text(self) -> str:
        """What holds and why, "" where all goes on."""
        return "; ".join(f"{service}: {reason}" for service, reason in self.holding.items())

    async def tell(self, service: str, error: CommandRefused) -> None:
        """``service`` cannot go on: one line, and one alert, for as long as the reason is this."""
        reason = str(error)
        if self.holding.get(service) == reason:
            return
        self.holding[service] = reason
        hint = WRONG_TYPE_HINT if reason.startswith(WRONG_TYPE) else "see `asb doctor`"
        logger.error("%s holds: Redis refuses a command: %s; hint: %s", service, reason, hint)
        alert = {"type": "SERVICE_HOLDS", "service": service, "error": reason, "hint": hint}
        with contextlib.suppress(AsbError, CommandRefused):
            body = msgspec.json.encode(alert)
            await self._client.call("PUBLISH", self._keys.alerts_channel, body)

    async def through(self, work: Work, lost: Callable[[], None]) -> None:
        """Run ``work`` again and again; while Redis is away, wait a little longer each time, and
        say that it was ``lost``.

        A command of its that Redis refuses (a key of another type, say) holds up this one work,
        never the bus.
        """
        pause, name = RETRY_S[0], name_of(work)
        while True:
            try:
                await work()
                self.over(name)
                pause = RETRY_S[0]
            except RedisUnavailable:
                lost()
                await anyio.sleep(pause)
                pause = min(2 * pause, RETRY_S[1])
            except CommandRefused as error:
                await self.tell(name, error)
                await anyio.sleep(RETRY_S[1])

    def over(self, service: str) -> None:
        """``service`` did its work."""
        if self.holding and self.holding.pop(service, None):
            logger.warning("%s goes on", service)
