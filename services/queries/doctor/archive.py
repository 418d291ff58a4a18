"""What doctor says of the archive: how far it reaches, and that it holds words."""

from __future__ import annotations

from collections.abc import Iterator

from projections.format import count
from services.archive.copying import read_mark
from services.client.bus import Bus
from services.store.health import FactRow


def archive_rows(bus: Bus) -> Iterator[FactRow]:
    """One row, from the mark in Redis: the files may lie on another host."""
    mark = read_mark(bus.client, bus.keys)
    if mark is None:
        yield ("archive", "none: `asb archive` copies the log to files, with its words", "ok", "")
        return
    segments = count(mark.n, "segment")
    words = f"{segments} up to {mark.last}, with the words of tasks and results"
    yield ("archive", f"{words}; `asb archive --verify` reads it", "ok", "")
