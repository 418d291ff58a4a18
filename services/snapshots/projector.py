"""Snapshots, written off the loop: a process of its own folds the tail and keeps the result.

What became of the last one stands beside it on the server: how far it reaches, or why it failed.
A failure is told once, as an alert, until one succeeds.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

from events.envelope import Event
from events.keys import Keys
from projections.state import State
from services.projector import Projector, Setup
from services.runtime import own_process
from services.runtime.errors import CommandRefused
from services.store.client import SyncClient
from services.store.history import folder_of
from services.store.snapshot_record import SnapshotRecord, decode_record, keep

logger = logging.getLogger("asb")

ERRAND = "services.snapshots.projector"
EVERY_EVENTS = 25_000  # folded within a second, with what is around it: any moment is shown in that
RETRY_S = (5.0, 300.0)  # first and longest pause after one that failed


def due_after(every_events: int, open_tasks: int) -> int:
    """The tail from which a new snapshot is due, in events: a snapshot carries the open tasks."""
    return max(every_events, 2 * open_tasks)


class Snapshots(Projector):
    """Lets a snapshot be written when the tail exceeds ``due_after``."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._client, self._keys = setup.client, setup.keys
        self._every = setup.settings.snapshots.every_events
        archives = str(folder_of(setup.settings))
        order = SnapshotOrder(setup.client.url, setup.keys.namespace, archives)
        self._order = msgspec.json.encode(order)
        self._record: SnapshotRecord | None = None  # unknown until it was looked up
        self._events = self._open = 0

    def feed(self, events: Sequence[Event], state: State) -> None:
        self._events, self._open = state.meta.events, len(state.tasks)
        if self._record is None or self._due(self._record):
            self.wake()

    def restored(self, state: State) -> None:
        self._record = None
        self._events, self._open = state.meta.events, len(state.tasks)
        self.wake()

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: how far the newest snapshot reaches, and what failed since."""
        record = self._record or SnapshotRecord()
        state = "failed" if record.failures else "kept" if record.events else "none"
        return {
            "snapshot": state,
            "snapshot_log_id": record.log_id,
            "snapshot_bytes": record.size,
            "snapshot_ms": record.took_ms,
            "snapshot_failures": record.failures,
            "snapshot_error": record.error,
            "tail": record.tail(self._events),
        }

    def _due(self, record: SnapshotRecord) -> bool:
        return record.tail(self._events) > due_after(self._every, self._open)

    async def flush(self, woken: bool) -> None:
        """Let one be written, if it is due."""
        self._record = await self._looked_up()  # another host may have written one
        if not self._due(self._record):
            return
        error = await own_process.errand(ERRAND, self._order)
        self._record = await self._looked_up()
        if error:
            await self._failed(self._record, error)
            pause = RETRY_S[0] * 2 ** min(self._record.failures - 1, 10)
            self.wake()
            await anyio.sleep(min(pause, RETRY_S[1]))

    async def _looked_up(self) -> SnapshotRecord:
        try:
            return decode_record(await self._client.call("GET", self._keys.snapshot_record))
        except CommandRefused:  # a key of another type: the next snapshot replaces it
            return SnapshotRecord()

    async def _failed(self, record: SnapshotRecord, error: str) -> None:
        """Say it once: on standard error, as an alert, and for whoever asks later."""
        reported = record.failures > 0
        record.failures, record.error = record.failures + 1, error
        if not reported:
            logger.error("no snapshot could be written: %s", error)
            alert = {
                "type": "SNAPSHOT_FAILED",
                "error": error,
                "log_id": record.log_id,
                "tail": record.tail(self._events),
                "hint": "reading the bus gets slower with every event; see `asb doctor`",
            }
            body = msgspec.json.encode(alert)
            await self._client.call("PUBLISH", self._keys.alerts_channel, body)
        kept = msgspec.json.encode(record)
        await self._client.call("SET", self._keys.snapshot_record, kept)


def projectors(setup: Setup) -> list[Projector]:
    """What the snapshots service projects."""
    return [Snapshots(setup)]


class SnapshotOrder(msgspec.Struct, frozen=True):
    """What its process is to do: fold the log of this server, with what was archived of it."""

    url: str
    namespace: str
    archives: str


def main(order: bytes) -> None:
    """The process: fold and keep."""
    asked = msgspec.json.decode(order, type=SnapshotOrder)
    with contextlib.closing(SyncClient(asked.url, Keys(asked.namespace).log)) as client:
        keep(client, Keys(asked.namespace), Path(asked.archives))


if __name__ == "__main__":
    own_process.run_errand(main)
