"""States beside the segments: whoever looks at a past moment begins at one. They are checkpoints,
which would go with the log, and a cache: the segments alone say the same."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from events.keys import Keys
from events.log import after
from services.store import checkpoints
from services.store.checkpoints import Checkpoint
from services.store.client import SyncClient
from services.store.history import state_file
from services.store.segments import SegmentRecord, read_chain

NUMBER_MAX = 64


def keep_checkpoint(client: SyncClient, keys: Keys, folder: Path, record: SegmentRecord) -> None:
    """Keep the newest checkpoint that stands within a segment beside its file, before the log is
    cut there. A crash leaves none, or a whole one."""
    path = state_file(folder, record)
    if path.is_file():
        return
    for place in reversed(checkpoints.places(client, keys)):
        if after(record.first, place.log_id) or after(place.log_id, record.last):
            continue
        if (state := checkpoints.load(client, keys, place)) is not None:
            _write(path, state.encode())
            _thin(folder)
            return


def _write(path: Path, encoded: bytes) -> None:
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(gzip.compress(encoded, compresslevel=1))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _thin(folder: Path) -> None:
    """At most ``NUMBER_MAX``; those go whose neighbours are nearest."""
    kept: dict[Checkpoint, Path] = {}
    events = 0
    for record in read_chain(folder):
        events += record.entries
        path = state_file(folder, record)
        if path.is_file():
            kept[Checkpoint(events, record.last)] = path
    while len(kept) > NUMBER_MAX:
        kept.pop(checkpoints.crowded(list(kept))).unlink(missing_ok=True)
