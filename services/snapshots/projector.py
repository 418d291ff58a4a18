"""Snapshots, written off the loop: a process of its own folds the tail and keeps the result.

What became of the last one stands beside it on the server: how far it reaches, or why it failed.
A failure is told once, as an alert, until one succeeds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import anyio
import msgspec

from events.envelope import Event
from events.harmless import one_line
from events.keys import Keys
from projections.state import State
from services.projector import Projector, Setup
from services.runtime import own_process
from services.runtime.errors import AsbError, CommandRefused
from services.store.client import Client, SyncClient
from services.store.rebuild import write_snapshot

logger = logging.getLogger("asb")

EVERY_EVENTS = 25_000  # folded within a second, with what is around it: any moment is shown in that
NICE = 15
RETRY_S = (5.0, 300.0)  # first and longest pause after one that failed
ERROR_MAX = 1_000  # characters of an error that are kept


class SnapshotRecord(msgspec.Struct, omit_defaults=True):
    """What is known of the newest snapshot and of the last try. Sizes in bytes, ``took_ms`` in ms,
    ``at``, the time of the last event it covers, in µs."""

    log_id: str = ""
    events: int = 0
    size: int = 0
    took_ms: int = 0
    failures: int = 0  # tries since the last that succeeded
    error: str = ""
    at: int = 0

    def tail(self, events: int) -> int:
        """Of ``events`` on the log those behind the snapshot. One that reaches further than the log
        is of a log that has gone back since: it is worth nothing."""
        return events - self.events if self.events <= events else events


_records = msgspec.json.Decoder(SnapshotRecord)


def decode_record(data: bytes | None) -> SnapshotRecord:
    """The record as it stands on the server; an empty one where there is none."""
    if data is None:
        return SnapshotRecord()
    try:
        return _records.decode(data)
    except msgspec.MsgspecError:  # somebody else's: the next snapshot replaces it
        return SnapshotRecord()


def due_after(every_events: int, open_tasks: int) -> int:
    """The tail from which a new snapshot is due, in events: a snapshot carries the open tasks."""
    return max(every_events, 2 * open_tasks)


class Snapshots(Projector):
    """Lets a snapshot be written when the tail exceeds ``due_after``."""

    def __init__(self, client: Client, keys: Keys, every_events: int = EVERY_EVENTS) -> None:
        super().__init__()
        self._client, self._keys, self._every = client, keys, every_events
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
        error = await write_in_process(self._client.url, self._keys)
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


async def write_in_process(url: str, keys: Keys) -> str:
    """Write a snapshot in a process of its own; why it failed, "" where it did not. The URL travels
    by environment: it may hold a password."""
    environment = {**os.environ, "ASB_RUN_URL": url, "ASB_RUN_NAMESPACE": keys.namespace}
    done = await anyio.run_process(
        own_process.command("services.snapshots.projector"),
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (said[-1] if said else f"its process ended with {done.returncode}")[:ERROR_MAX]


def keep(client: SyncClient, keys: Keys) -> SnapshotRecord:
    """Write a snapshot, and what is known of it. Raises AsbError and CommandRefused."""
    began = time.monotonic()
    state, size = write_snapshot(client, keys)
    took = int((time.monotonic() - began) * 1000)
    meta = state.meta
    record = SnapshotRecord(meta.log_id, meta.events, size, took, at=meta.at)
    client.call("SET", keys.snapshot_record, msgspec.json.encode(record))
    return record


def projectors(setup: Setup) -> list[Projector]:
    """What the snapshots service projects."""
    return [Snapshots(setup.client, setup.keys, setup.settings.snapshots.every_events)]


def main() -> None:
    """The process: fold and keep, politely."""
    os.nice(NICE)
    client = SyncClient(os.environ["ASB_RUN_URL"])
    with contextlib.closing(client):
        try:
            keep(client, Keys(os.environ["ASB_RUN_NAMESPACE"]))
        except (AsbError, CommandRefused) as error:
            sys.stderr.write(one_line(str(error).splitlines()[0]) + "\n")
            sys.exit(1)


if __name__ == "__main__":
    main()
