"""From the log to its archive, and the archive held against the log.

What was archived last stands in Redis, too (the head mark): an archive that lost its end, or a log
that was replaced, shows. Words stay out unless they are asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path

import msgspec

from events.envelope import figures_of, without_words
from events.keys import Keys
from events.log import START, parse_id
from services.runtime.errors import AsbError
from services.runtime.failpoints import point
from services.store import rebuild
from services.store.client import SyncClient
from services.store.heartbeat import host_name
from services.store.history import (
    ArchiveMark,
    History,
    index_tasks,
    move_mark,
    read_mark,
    state_file,
    task_of_entry,
)
from services.store.raw_entries import entries
from services.store.segments import (
    CHAIN,
    ArchiveBroken,
    Entry,
    SegmentRecord,
    check_file,
    entries_of,
    read_chain,
    write_segment,
)

Advance = Callable[[int], None]
Change = Callable[[Entry], Entry]
LOCK = ".lock"
FRESH, OLD = ".new", ".old"


def says_the_same(archived: Entry, there: Entry) -> bool:
    """Whether an entry of the archive is that of the log, but for words that one of the two does
    not have: they were not archived, or forgotten since."""
    if archived == there:
        return True
    (place, mine), (other_place, other) = archived, there
    if (place, mine[:11], len(mine)) != (other_place, other[:11], len(other)) or len(mine) != 12:
        return False
    both_have_words = all(b'"words":' in fields[11] for fields in (mine, other))
    figures = figures_of(mine[11])
    return not both_have_words and bool(figures) and figures == figures_of(other[11])


def wordless(entry: Entry) -> Entry:
    """An entry as it is archived without its words: they count as taken out when it was said."""
    place, fields = entry
    if len(fields) != 12 or not fields[9].isdigit():
        return entry
    return place, [*fields[:11], without_words(fields[11], int(fields[9]))]


class Archive:
    """The archive of one log, in a folder named after the log. ``mark``: what Redis says of it."""

    def __init__(self, client: SyncClient, keys: Keys, base: Path) -> None:
        """``base``: the folder of all archives. Raises AsbError for a log that is empty, and for
        one whose archive lies on another host."""
        self.client, self.keys = client, keys
        self.mark = read_mark(client, keys)
        if self.mark is not None:
            name = Path(self.mark.name).name
        else:
            first = rebuild.first_event(client, keys)
            if first is None:
                raise AsbError("the log is empty: there is nothing to archive", hint="asb up")
            name = f"{keys.namespace}-{first.id.rpartition(':')[2]}"
        self.folder = base / name
        self._history = History(client, keys, base)
        self._finish_renewal()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*"))

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is kept on another host, or in another folder of this one."""
        return self.mark is not None and not (self.folder / CHAIN).is_file()

    @contextlib.contextmanager
    def locked(self) -> Generator[bool]:
        """False where another process of this host writes it now."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.folder.with_name(self.folder.name + LOCK)
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            self.mark = read_mark(self.client, self.keys)
            yield True

    # -- writing -----------------------------------------------------------------------------------

    def extend(
        self, segment_entries: int, *, words: bool = False, number: int | None = None
    ) -> list[SegmentRecord]:
        """Archive what came since the last time, in ``number`` segments at most; the new ones.

        Raises ArchiveBroken, and AsbError where the log does not go on from the archive's end.
        """
        chain = self.chain()
        last = chain[-1] if chain else None
        if last is not None and not self._goes_on(last):
            raise AsbError(
                f"the log does not hold {last.last}, with which its archive ends: it went back",
                hint="`asb archive --anew` writes it again from the log as it is now",
            )
        waiting = self._entries(last.last if last is not None else START)
        made: list[SegmentRecord] = []
        while number is None or len(made) < number:
            batch = [
                entry if words else wordless(entry) for entry in islice(waiting, segment_entries)
            ]
            if not batch:
                return made
            last = write_segment(self.folder, last, batch)
            point("archive.written")
            self._move(last, words=words)
            index_tasks(self.folder, last, {task_of_entry(entry) for entry in batch} - {""})
            made.append(last)
        return made

    def chain(self) -> list[SegmentRecord]:
        """Its records. One that a crash kept from the mark is taken in. Raises ArchiveBroken."""
        chain = read_chain(self.folder)
        self._check_mark(chain)
        if (
            chain
            and (self.mark is None or self.mark.last != chain[-1])
            and self._goes_on(chain[-1])
        ):
            self._move(chain[-1], words=self._has_words(chain[-1]))
        return chain

    def _goes_on(self, last: SegmentRecord) -> bool:
        """Whether the log goes on where this segment ends."""
        cut = self.mark is not None and self.mark.cut == last.n
        return cut or bool(self.client.call("XRANGE", self.keys.log, last.last, last.last))

    def _has_words(self, record: SegmentRecord) -> bool:
        return any(b'"words":' in entry[1][-1] for entry in entries_of(self.folder, record))

    def _move(self, last: SegmentRecord, *, words: bool) -> None:
        """Have the mark name this segment as the last one."""
        was = self.mark
        if was is None:
            place = str(self.folder)
            now = ArchiveMark(self.folder.name, host_name(), place, last, words=words)
        else:
            now = msgspec.structs.replace(was, last=last, words=was.words or words)
        self.mark = move_mark(self.client, self.keys, was, now)

    # -- anew --------------------------------------------------------------------------------------

    def renew(self, segment_entries: int, change: Change, *, words: bool) -> list[SegmentRecord]:
        """Write all of it anew, each entry as ``change`` makes it: what was cut off from the old
        files, the rest from the log as it is now; the records. A crash at it is made good by the
        next who opens it. ``words``: whether it may hold any."""
        chain = read_chain(self.folder)
        cut = chain[: self.mark.cut] if self.mark is not None else []
        if self.mark is not None and len(cut) < self.mark.cut:
            self._check_mark(chain)
        fresh = self._beside(FRESH)
        shutil.rmtree(fresh, ignore_errors=True)
        made: list[SegmentRecord] = []

        def write(batch: Iterable[Entry]) -> None:
            changed = [change(entry) if words else wordless(entry) for entry in batch]
            made.append(write_segment(fresh, made[-1] if made else None, changed))
            index_tasks(fresh, made[-1], {task_of_entry(entry) for entry in changed} - {""})

        for record in cut:  # the log has begun behind them since: they stay what they are
            check_file(self.folder, record)
            write(entries_of(self.folder, record))
            if (state := state_file(self.folder, record)).is_file():
                shutil.copy2(state, state_file(fresh, made[-1]))
        waiting = self._entries(cut[-1].last if cut else START)
        while batch := list(islice(waiting, segment_entries)):
            write(batch)
        point("archive.anew")
        if self.folder.exists():
            self.folder.rename(self._beside(OLD))
        point("archive.moved")
        fresh.rename(self.folder)
        point("archive.exchanged")
        self._exchanged(made)
        return made

    def _exchanged(self, chain: list[SegmentRecord]) -> None:
        """The new files are in their place: tell, and delete the old ones."""
        was = self.mark
        if chain:
            words = any(self._has_words(record) for record in chain)
            now = ArchiveMark(self.folder.name, host_name(), str(self.folder), chain[-1])
            if was is not None:
                now = msgspec.structs.replace(was, last=chain[-1])
            now = msgspec.structs.replace(now, words=words)
            self.mark = move_mark(self.client, self.keys, was, now)
        shutil.rmtree(self._beside(OLD), ignore_errors=True)

    def _finish_renewal(self) -> None:
        """One that a crash has cut short: either set of files is whole."""
        old = self._beside(OLD)
        if not old.exists():
            return
        with self.locked() as ours:
            if not ours or not old.exists():
                return
            if self.folder.exists():
                self._exchanged(read_chain(self.folder))
            else:
                old.rename(self.folder)

    def _beside(self, end: str) -> Path:
        return self.folder.with_name(self.folder.name + end)

    # -- judging -----------------------------------------------------------------------------------

    def verify(self, advance: Advance = lambda _: None) -> list[SegmentRecord]:
        """Read all of it: the chain, every byte, the head mark, and every entry that is still on
        the log against it. The records. Raises ArchiveBroken for the first thing that is not as it
        was."""
        chain = read_chain(self.folder)
        self._check_mark(chain)
        cursor = START
        for record in chain:
            check_file(self.folder, record)
            try:
                self._compare(record, cursor)
            except ArchiveBroken:
                if not self._is_cut(record):  # it was not, a moment ago
                    raise
                self._compare(record, cursor)
            advance(record.entries)
            cursor = record.last
        return chain

    def _is_cut(self, record: SegmentRecord) -> bool:
        """Whether the log begins behind this segment, or will at once."""
        self.mark = read_mark(self.client, self.keys)
        return self.mark is not None and record.n <= self.mark.cut

    def _compare(self, record: SegmentRecord, cursor: str) -> None:
        """One segment against the log, where that still has it: it must hold what its record says,
        in order, behind ``cursor``."""
        count, before = 0, parse_id(cursor)
        kept = entries_of(self.folder, record)
        cut = self._is_cut(record)
        log = self._entries(cursor, record.last)
        for archived, there in ((x, x) for x in kept) if cut else zip_longest(kept, log):
            place = (archived or there or (b"?",))[0].decode()
            if archived is None or there is None or not says_the_same(archived, there):
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
        """The chain must hold the segment that the mark names. It may go on behind that: after a
        crash between the two, or where Redis was restored from before."""
        said = self.mark
        if said is None or any(record.chain == said.last.chain for record in chain):
            return
        if not chain:
            hint = (
                "archive there; a copy of it here: [archive] folder. If it is lost, `--anew` writes"
            )
            hint += " what the log still holds"
            raise ArchiveBroken(
                f"the archive of this log is not here but in {said.place}", hint=hint
            )
        raise ArchiveBroken(
            f"{self.folder} does not end as Redis says: its mark names segment {said.last.n} up to "
            f"{said.last.last}, the chain has {len(chain)}",
            hint="was it moved or restored from an older copy? Bring the newer one back",
        )

    def _entries(self, after: str, until: str = "+") -> Iterator[Entry]:
        for batch in entries(self.client, self.keys, after, until):
            yield from ((entry[0], entry[1]) for entry in batch)
