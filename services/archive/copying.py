"""From the log to its archive, and the archive held against the log.

What was archived last stands in Redis, too (the head mark): an archive that lost its end, or a log
that was replaced, shows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path

import msgspec

from events.envelope import beside_of, without_words
from events.keys import Keys
from services.archive.segments import (
    ArchiveBroken,
    Entry,
    SegmentRecord,
    check_file,
    entries_of,
    read_chain,
    write_segment,
)
from services.runtime.errors import AsbError
from services.runtime.settings import Settings
from services.store import rebuild
from services.store.client import SyncClient
from services.store.log import START, parse_id
from services.store.raw_entries import entries

Advance = Callable[[int], None]


def read_mark(client: SyncClient, keys: Keys) -> SegmentRecord | None:
    """The record of the last segment that was archived, as it stands in Redis; None without one.
    Raises ArchiveBroken where something else stands there."""
    mark = client.call("GET", keys.archive_mark)
    try:
        return msgspec.json.decode(mark, type=SegmentRecord) if mark is not None else None
    except msgspec.MsgspecError as error:
        hint = f"the chain on disk stands; look at it, then DEL it: GET {keys.archive_mark}"
        raise ArchiveBroken(f"{keys.archive_mark} holds no record of asb", hint=hint) from error


def folder_of(settings: Settings) -> Path:
    """The folder of all archives."""
    return settings.archive.folder or settings.data_dir / "archive"


def _says_the_same(archived: Entry, there: Entry) -> bool:
    """Whether an entry of the archive is that of the log, or was until its words were forgotten."""
    if archived == there:
        return True
    place, fields = there
    forgotten_at = beside_of(fields[11]).forgotten_at if len(fields) == 12 else 0
    if not forgotten_at or len(archived[1]) != len(fields):
        return False
    then = without_words(archived[1][11], forgotten_at)
    return (place, fields) == (archived[0], [*archived[1][:11], then])


class Archive:
    """The archive of one log, in a folder named after the log."""

    def __init__(self, client: SyncClient, keys: Keys, base: Path) -> None:
        """``base``: the folder of all archives. Raises AsbError for a log that is empty."""
        self._client, self._keys = client, keys
        first = rebuild.first_event(client, keys)
        if first is None:
            raise AsbError("the log is empty: there is nothing to archive", hint="asb up")
        self.folder = base / f"{keys.namespace}-{first.id.rpartition(':')[2]}"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*"))

    def extend(self, segment_entries: int) -> list[SegmentRecord]:
        """Archive what came since the last time; the new segments.

        Raises ArchiveBroken, and AsbError where the log does not go on from the archive's end.
        """
        chain = read_chain(self.folder)
        self._check_mark(chain)
        last = chain[-1] if chain else None
        if last is not None and not self._holds(last.last):
            raise AsbError(
                f"the log does not hold {last.last}, with which its archive ends: it went back, or "
                "was trimmed",
                hint=f"`asb doctor` says which; to begin anew, move {self.folder} away",
            )
        waiting = self._entries(last.last if last is not None else START)
        made: list[SegmentRecord] = []
        while batch := list(islice(waiting, segment_entries)):
            last = write_segment(self.folder, last, batch)
            self._mark(last)
            made.append(last)
        return made

    def renew(self, segment_entries: int) -> list[SegmentRecord]:
        """Write all of it anew from the log as it is now, without the words that were forgotten
        since, and delete the old files; the new segments. A crash at it is made good by doing it
        again. Raises AsbError where the log begins behind the archive."""
        chain = read_chain(self.folder)
        if chain and not self._holds(chain[0].first):
            raise AsbError(
                f"the log does not hold {chain[0].first}, with which its archive begins",
                hint="it was trimmed, or another began: the archive alone knows what stood there",
            )
        fresh, old = (self.folder.with_name(self.folder.name + end) for end in (".new", ".old"))
        for left_over in (fresh, old):
            shutil.rmtree(left_over, ignore_errors=True)
        waiting, made = self._entries(START), list[SegmentRecord]()
        while batch := list(islice(waiting, segment_entries)):
            made.append(write_segment(fresh, made[-1] if made else None, batch))
        if self.folder.exists():
            self.folder.rename(old)
        fresh.rename(self.folder)
        self._mark(made[-1])
        shutil.rmtree(old, ignore_errors=True)
        return made

    def _mark(self, last: SegmentRecord) -> None:
        self._client.call("SET", self._keys.archive_mark, msgspec.json.encode(last))

    def verify(self, advance: Advance = lambda _: None) -> list[SegmentRecord]:
        """Read all of it: the chain, every byte, the head mark, and every entry against the log.
        The records. Raises ArchiveBroken for the first thing that is not as it was."""
        chain = read_chain(self.folder)
        self._check_mark(chain)
        cursor = START
        for record in chain:
            check_file(self.folder, record)
            self._compare(record, cursor)
            advance(record.entries)
            cursor = record.last
        return chain

    def _compare(self, record: SegmentRecord, cursor: str) -> None:
        """One segment against the log: it must hold what its record says, in order, behind
        ``cursor``."""
        count, before = 0, parse_id(cursor)
        kept = entries_of(self.folder, record)
        for archived, there in zip_longest(kept, self._entries(cursor, record.last)):
            place = (archived or there or (b"?",))[0].decode()
            if archived is None or there is None or not _says_the_same(archived, there):
                raise ArchiveBroken(
                    f"{self.folder / record.file}: entry {place} is not what the log says",
                    hint="one of the two was changed: compare with a copy",
                )
            if parse_id(place) <= before:
                raise ArchiveBroken(f"{self.folder / record.file}: {place} is out of order")
            before, count = parse_id(place), count + 1
        if count != record.entries:
            raise ArchiveBroken(f"{self.folder / record.file}: {count} entries, not as recorded")

    def _check_mark(self, chain: list[SegmentRecord]) -> None:
        """The head mark may be one segment behind (a crash between the two), and no more."""
        said = read_mark(self._client, self._keys)
        if said is None or any(record.chain == said.chain for record in chain[-2:]):
            return
        raise ArchiveBroken(
            f"{self.folder} does not end as Redis says: its mark names segment {said.n} up to "
            f"{said.last}, the chain has {len(chain)}",
            hint="was it moved or restored from an older copy? Bring the newer one back",
        )

    def _holds(self, place: str) -> bool:
        return bool(self._client.call("XRANGE", self._keys.log, place, place))

    def _entries(self, after: str, until: str = "+") -> Iterator[Entry]:
        for batch in entries(self._client, self._keys, after, until):
            yield from ((entry[0], entry[1]) for entry in batch)
