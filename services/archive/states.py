"""States beside the segments: whoever looks at a past moment begins at one. They are a cache: the
segments alone say the same."""

from __future__ import annotations

import contextlib
import gc
import gzip
import os
from collections.abc import Generator
from pathlib import Path

from projections import fold
from projections.state import State
from services.store import checkpoints, rebuild
from services.store.checkpoints import Checkpoint
from services.store.history import read_state, state_file
from services.store.segments import SegmentRecord, entries_of, read_chain

EVERY_ENTRIES = 20_000  # folded within a second
NUMBER_MAX = 64


class States:
    """Folds one archive, segment by segment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = State()
        self._at: SegmentRecord | None = None  # the last segment that is in ``_state``
        self._unkept = 0  # entries folded since a state was kept

    def up_to(self, record: SegmentRecord) -> State:
        """The state at the end of a segment, kept beside it now and then."""
        if self._at is None or record.n != self._at.n + 1:
            self._begin_before(record)
        self._fold(record)
        if self._unkept >= EVERY_ENTRIES:
            self.keep()
        return self._state

    def _begin_before(self, record: SegmentRecord) -> None:
        """From the nearest state that lies there."""
        chain = read_chain(self._folder)[: record.n - 1]
        self._state, self._at, self._unkept = State(), None, 0
        missing: list[SegmentRecord] = []
        for earlier in reversed(chain):
            if (state := read_state(self._folder, earlier)) is not None:
                self._state, self._at = state, earlier
                break
            missing.append(earlier)
        for earlier in reversed(missing):
            self._fold(earlier)

    def _fold(self, record: SegmentRecord) -> None:
        with _without_cycles():
            for event in rebuild.decoded(list(entries_of(self._folder, record))):
                fold.apply(self._state, event)
        self._at = record
        self._unkept += record.entries

    def keep(self) -> None:
        """Keep the state where it stands now. A crash leaves none, or a whole one."""
        if self._at is None or not self._unkept:
            return
        path = state_file(self._folder, self._at)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(gzip.compress(self._state.encode(), compresslevel=1))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        self._unkept = 0
        self._thin()

    def _thin(self) -> None:
        """At most ``NUMBER_MAX``; those go whose neighbours are nearest."""
        kept: dict[Checkpoint, Path] = {}
        events = 0
        for record in read_chain(self._folder):
            events += record.entries
            path = state_file(self._folder, record)
            if path.is_file():
                kept[Checkpoint(events, record.last)] = path
        while len(kept) > NUMBER_MAX:
            kept.pop(checkpoints.crowded(list(kept))).unlink(missing_ok=True)


@contextlib.contextmanager
def _without_cycles() -> Generator[None]:
    """Folding makes many records and no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
