"""Streams that look like intake streams and that nobody opened: found slowly, and reported."""

from __future__ import annotations

import logging
from collections.abc import Collection

import anyio
import msgspec

from events.keys import Keys
from services.runtime.clock import elapsed
from services.store.client import Client

logger = logging.getLogger("asb")

SCAN_COUNT = 500  # keys a step looks at
SHARE = 99  # a step's time is followed by this many times as much rest: at most 1 % of the server
SWEEP_S = 60.0  # pause between two sweeps
KEPT_S = 900  # how long what was found is remembered for `asb doctor`
NAMED = 20  # names kept; beyond that only their number matters


class UnregisteredIntakes:
    """Looks for ``asb:intake:*`` streams beside the intakes that ``asb acl`` opened.

    They are not read: whoever may create a key could otherwise speak under any name.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._named: set[str] = set()
        self.steps = 0
        self.busy_s = 0.0  # time spent waiting for the server's answers: what it spent, at most

    async def sweep(self, known: Collection[str], *, rest: bool = True) -> list[str]:
        """One walk through all keys; the intakes that are not ``known``. Raises
        RedisUnavailable."""
        pattern = self._keys.intake("*")
        names: set[str] = set()
        cursor = b"0"
        while True:
            began = elapsed()
            cursor, batch = await self._client.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, "TYPE", "stream"
            )
            took = elapsed() - began
            self.steps += 1
            self.busy_s += took
            names.update(key.decode("utf-8", "replace") for key in batch)
            if cursor == b"0":
                return sorted(names - set(known))
            if rest:
                await anyio.sleep(took * SHARE)

    async def watch(self, known: Collection[str]) -> None:
        """One sweep, its findings told and kept, and the pause after it."""
        names = await self.sweep(known)
        for intake in names:
            if intake not in self._named:
                logger.warning(
                    "the stream %s is not read: nobody opened this intake (asb acl %s opens it)",
                    intake,
                    intake[len(self._keys.main_intake) + 1 :],
                )
        self._named = set(names)
        kept = msgspec.json.encode({"intakes": names[:NAMED], "count": len(names)})
        await self._client.call("SET", self._keys.unregistered_intakes, kept, "EX", KEPT_S)
        await anyio.sleep(SWEEP_S)
