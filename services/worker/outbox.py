"""Reports on their way to the intake stream.

One flusher sends all that waits in one pipeline, as soon as the previous flush is over: no timer,
so an idle worker reports at once and a busy one in batches. A report leaves the outbox only when
Redis has acknowledged it; after a lost connection it is sent again (the engine knows it by task,
attempt and session).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.store.client import Client
from services.worker.messages import Report

log = logging.getLogger("asb.worker")

BATCH = 1000  # commands in one pipeline: bounds what is sent again after a lost connection
ROOM_BYTES = 16 * 1024 * 1024  # beyond this the worker takes no new tasks
ENTRY_BYTES = 200  # what an entry weighs beside its data
_HOPELESS = ("NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE")
_RETRY_S, _RETRY_MAX_S = 0.1, 2.0

# A report, or a function that makes one at the last moment (None: no longer worth sending).
Item = Report | Callable[[], Report | None]


class Outbox:
    """Reports in order, at least once, in bounded memory: see ``wait_for_room``."""

    def __init__(self, client: Client, intake: str) -> None:
        self._client = client
        self._intake = intake
        self._items: deque[Item] = deque()
        self._bytes = 0
        self.last_acked = (
            b""  # the last entry that Redis acknowledged; while it is away, before that
        )
        self.away = False
        self._losses = client.losses
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()  # set after each flush
        self._flushing = False
        self._open = True
        self._scope = anyio.CancelScope(shield=True)

    def add(self, item: Item) -> None:
        """Append; ``wake`` sends."""
        self._items.append(item)
        self._bytes += ENTRY_BYTES if callable(item) else ENTRY_BYTES + len(item[1])

    def wake(self) -> None:
        """Let the flusher send what waits."""
        self._wake.set()

    @property
    def full(self) -> bool:
        return self._bytes >= ROOM_BYTES

    async def wait_for_room(self) -> None:
        """Return when less waits than the bound allows."""
        while self.full and self._open:
            await self._next_flush()

    async def drained(self) -> None:
        """Return when everything added so far, and since, is acknowledged."""
        self.wake()
        while self._open and (self._items or self._flushing):
            await self._next_flush()

    async def _next_flush(self) -> None:
        self._sent.clear()
        self.wake()
        await self._sent.wait()

    @property
    def waiting(self) -> int:
        """Reports not yet acknowledged, roughly."""
        return len(self._items)

    async def run(self) -> None:
        """The flusher; ends with ``close``, not with the scope around it.

        Raises RedisUnsuitable when this worker may not write to its intake at all.
        """
        try:
            with self._scope:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    while self._items:
                        await self._flush()
        finally:
            self._open = False
            self._sent.set()

    def back(self, losses: int) -> None:
        """What was acknowledged last has been looked for, after so many ``losses`` of the
        client's."""
        self.away, self._losses = False, losses

    def close(self) -> None:
        """End the flusher, whatever still waits."""
        self._scope.cancel()

    async def _flush(self) -> None:
        size = min(BATCH, len(self._items))
        batch = [self._items.popleft() for _ in range(size)]
        self._bytes -= sum(ENTRY_BYTES if callable(i) else ENTRY_BYTES + len(i[1]) for i in batch)
        self._flushing = True
        pause = _RETRY_S
        while batch:
            left = await self._send(batch)
            if left:
                await anyio.sleep(pause if len(left) == len(batch) else _RETRY_S)
                pause = min(pause * 2, _RETRY_MAX_S)
            batch = left
        self._flushing = False
        self._sent.set()

    async def _send(self, batch: list[Item]) -> list[Item]:
        """One pipeline; what has to be sent again."""
        sent: list[Item] = []
        commands: list[tuple[str | bytes, ...]] = []
        intake = self._intake
        for item in batch:
            report = item() if callable(item) else item
            if report is not None:
                sent.append(item)
                name = ("id", report[2]) if len(report) == 3 else ()
                commands.append(("XADD", intake, "*", "type", report[0], "data", report[1], *name))
        if not commands:
            return []
        try:
            replies = await self._client.pipeline(commands)
        except RedisUnavailable as error:
            self.away = True
            log.warning("%d reports wait: %s", len(sent), str(error).splitlines()[0])
            return sent
        # Others may have met the outage: what we were told before it has to be looked for, still.
        self.away = self.away or self._losses != self._client.losses
        if not self.away:
            self.last_acked = next(
                (r for r in replies[::-1] if isinstance(r, bytes)), self.last_acked
            )
        refused = [n for n, reply in enumerate(replies) if isinstance(reply, CommandRefused)]
        return [sent[n] for n in refused if self._may_pass_later(replies[n])]

    def _may_pass_later(self, refusal: Any) -> bool:
        text = str(refusal)
        if text.startswith(_HOPELESS):
            raise RedisUnsuitable(
                f"the intake stream {self._intake} refuses this worker's reports: {text}",
                hint="check the Redis user's rights, and that the key is a stream",
            )
        log.warning("a report waits: the intake stream %s answers: %s", self._intake, text)
        return True
