"""What is known of the newest snapshot, beside it on the server: how far it reaches, and why the
last try failed, if it did."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from events.keys import Keys
from services.store.client import SyncClient
from services.store.rebuild import write_snapshot


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


def keep(client: SyncClient, keys: Keys, archives: Path | None = None) -> SnapshotRecord:
    """Write a snapshot, and what is known of it. Raises AsbError and CommandRefused."""
    began = time.monotonic()
    state, size = write_snapshot(client, keys, archives=archives)
    took = int((time.monotonic() - began) * 1000)
    meta = state.meta
    record = SnapshotRecord(meta.log_id, meta.events, size, took, at=meta.at)
    client.call("SET", keys.snapshot_record, msgspec.json.encode(record))
    return record
