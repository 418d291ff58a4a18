"""The log from its first entry on: what was archived and trimmed, then what Redis holds.

What left Redis stands in files (``segments``). Where they lie, and where the log begins since,
stands in Redis (the archive's mark): it is moved before the log is cut, so whoever asks for both
misses nothing. States folded up to ends of segments lie beside them; they are a cache.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from events.keys import Keys
from events.log import START, after, parse_id
from projections.state import State, decode_state
from services.runtime.errors import BeginningLost
from services.runtime.settings import Settings
from services.store.client import SyncClient
from services.store.raw_entries import COUNT, batches, task_of
from services.store.scripts import Argument, script
from services.store.segments import (
    CHAIN,
    ArchiveBroken,
    Entry,
    SegmentRecord,
    check_file,
    entries_of,
    read_chain,
)

LAST = (1 << 64) - 1  # the largest second part of an id
STATE = ".state"  # what the file of a state ends with
TASKS = "tasks.sqlite"


class ArchiveMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Redis says of the archive: the name of its folder, on which host and where that lies,
    the record of its last segment, and the log id that the log begins at since it was cut (or
    before it: while the cut is under way). ``cut``: how many segments were cut off, with so many
    ``entries``; ``swept``: of how many of these the tasks' indexes are gone, too; ``words``:
    whether any segment holds words; ``cleaned``: which removal of words has reached those."""

    name: str
    host: str
    folder: str
    last: SegmentRecord
    begins: str = START
    cut: int = 0
    entries: int = 0
    swept: int = 0
    words: bool = False
    cleaned: str = ""

    @property
    def place(self) -> str:
        """Where its files are, for people."""
        return f"{self.folder} on {self.host}"


_marks = msgspec.json.Decoder(ArchiveMark)


def decode_mark(data: bytes | None, keys: Keys) -> ArchiveMark | None:
    """The mark as it stands in Redis; None without one. Raises ArchiveBroken where something else
    stands there."""
    try:
        return _marks.decode(data) if data is not None else None
    except (msgspec.MsgspecError, TypeError) as error:
        hint = f"the chain on disk stands; look at it, then DEL it: GET {keys.archive_mark}"
        raise ArchiveBroken(f"{keys.archive_mark} holds no record of asb", hint=hint) from error


def read_mark(client: SyncClient, keys: Keys) -> ArchiveMark | None:
    """What Redis says of the archive of this log. Raises as `decode_mark`."""
    return decode_mark(client.call("GET", keys.archive_mark), keys)


def move_mark(
    client: SyncClient, keys: Keys, was: ArchiveMark | None, now: ArchiveMark
) -> ArchiveMark:
    """Replace the mark iff it is still the one that was read; the new one. Raises ArchiveBroken
    where another has moved it."""
    there = client.call("GET", keys.archive_mark)
    before = hashlib.sha1(there).hexdigest() if there else ""
    args: list[Argument] = [before, msgspec.json.encode(now), 0]
    same = decode_mark(there, keys) == was
    if not same or not script("swap").now(client, [keys.archive_mark], args):
        hint = "two of them archive one log: `[archive] folder` of all hosts must be one, or one's"
        raise ArchiveBroken("another process has archived this log meanwhile", hint=hint)
    return now


def folder_of(settings: Settings) -> Path:
    """The folder of all archives."""
    return settings.archive.folder or settings.data_dir / "archive"


class History:
    """Reads archive and log as one. ``base``: the folder of all archives on this host; None for
    none."""

    def __init__(self, client: SyncClient, keys: Keys, base: Path | None = None) -> None:
        self._client, self._keys, self._base = client, keys, base
        self._read: tuple[str, list[Entry]] = ("", [])  # the segment that was read last

    # -- forward and back ------------------------------------------------------------------------

    def entries(self, since: str = START, until: str = "+") -> Iterator[list[Any]]:
        """The raw entries after ``since`` up to ``until``, in batches.

        Raises BeginningLost where some of them left Redis and their files are not on this host,
        ArchiveBroken where these are not as they were written.
        """
        if until != "+" and "-" not in until:
            until = f"{until}-{LAST}"
        cursor, served = since, START
        while True:
            # First the log, then the mark: of a cut between the two the mark tells.
            look = ("GET", self._keys.archive_mark)
            for batch, reply in batches(self._client, self._keys, cursor, until, look):
                mark = decode_mark(reply, self._keys)
                if mark is not None and after(mark.begins, cursor) and after(mark.begins, served):
                    break  # it was cut behind the cursor, and the archive not read for that cut
                if batch:
                    cursor = batch[-1][0].decode()
                    yield batch
            else:
                return
            served = mark.begins
            for batch in self._archived(mark, cursor, until):
                yield batch
                cursor = batch[-1][0].decode()

    def newest(self, until: str = "+", since: str = START) -> Iterator[list[Any]]:
        """The same, the newest first: up to ``until``, then further back to behind ``since``."""
        before = until
        while True:
            reply, mark = self._both("XREVRANGE", before, f"({since}")
            if reply:
                before = f"({reply[-1][0].decode()}"
                yield reply
            if len(reply) == COUNT:
                continue
            if mark is not None and after(mark.begins, since):
                yield from self._archived_back(mark, since, before)
            return

    def at(self, places: Iterable[str]) -> dict[str, Entry]:
        """Those of the archived entries that stand at these places, as far as their files are on
        this host."""
        wanted = set(places)
        mark = read_mark(self._client, self._keys) if wanted else None
        if mark is None:
            return {}
        hits: dict[str, Entry] = {}
        for record in self._segments(mark, missing_ok=True):
            inside = {p for p in wanted if not after(record.first, p) and not after(p, record.last)}
            for entry in self._entries_of(mark, record) if inside else ():
                if (place := entry[0].decode()) in inside:
                    hits[place] = entry
        return hits

    def of_task(self, task: str) -> list[Entry]:
        """The entries about one task that left Redis, in order, as far as their files are here."""
        mark = read_mark(self._client, self._keys)
        if mark is None or not mark.cut:
            return []
        records = self._segments(mark, missing_ok=True)
        wanted = self._holding(mark, task, records)
        return [
            entry
            for record in records
            if record.n in wanted
            for entry in self._entries_of(mark, record)
            if task_of_entry(entry) == task
        ]

    def first(self) -> str:
        """The id of the first entry of all, "" for an empty log."""
        mark = read_mark(self._client, self._keys)
        if mark is not None and mark.cut:
            return next((r.first for r in self._segments(mark, missing_ok=True)), mark.begins)
        reply = self._client.call("XRANGE", self._keys.log, "-", "+", "COUNT", 1)
        return reply[0][0].decode() if reply else ""

    def state(self, until: str = "+") -> State | None:
        """The newest state that lies beside the segments and reaches no further than ``until``."""
        mark = read_mark(self._client, self._keys)
        folder = self.folder(mark) if mark is not None else None
        if mark is None or folder is None:
            return None
        for record in reversed(self._segments(mark, missing_ok=True)):
            if until != "+" and after(record.last, until):
                continue
            if (state := read_state(folder, record)) is not None:
                return state
        return None

    def covers(self, first: str) -> bool:
        """Whether what stood before ``first``, the first entry of the log now, is in the archive
        and here. Raises ArchiveBroken for a chain that is not whole, and BeginningLost where the
        archive has it and lies elsewhere."""
        mark = read_mark(self._client, self._keys)
        if mark is None or not mark.cut or after(first, mark.begins):
            return False
        return bool(self._segments(mark))

    # -- files -----------------------------------------------------------------------------------

    def folder(self, mark: ArchiveMark) -> Path | None:
        """Where the files of this archive are on this host; None where they are not."""
        folder = self._base / Path(mark.name).name if self._base is not None else None
        return folder if folder is not None and (folder / CHAIN).is_file() else None

    def _segments(self, mark: ArchiveMark, *, missing_ok: bool = False) -> list[SegmentRecord]:
        """The records of what was cut off, in order. Raises BeginningLost where they are not here
        and that is not ``missing_ok``."""
        folder = self.folder(mark)
        if folder is None:
            if missing_ok:
                return []
            raise BeginningLost(
                f"what the log {self._keys.log} said before {mark.begins} is in its archive, which "
                f"is not on this host: {mark.place}",
                hint="ask there, or name a copy of it: [archive] folder",
            )
        chain = read_chain(folder)[: mark.cut]
        if not missing_ok and len(chain) < mark.cut:
            raise ArchiveBroken(
                f"{folder}: its chain does not reach to {mark.begins}, where the log begins",
                hint="was it restored from an older copy? Bring the newer one back",
            )
        return chain

    def _entries_of(self, mark: ArchiveMark, record: SegmentRecord) -> list[Entry]:
        """All of one segment, checked; the one that was read last is kept."""
        if self._read[0] != record.chain:
            folder = self.folder(mark)
            assert folder is not None
            check_file(folder, record)
            self._read = record.chain, list(entries_of(folder, record))
        return self._read[1]

    def _archived(self, mark: ArchiveMark, cursor: str, until: str) -> Iterator[list[Any]]:
        for record in self._segments(mark):
            if not after(record.last, cursor) or (until != "+" and after(record.first, until)):
                continue
            batch = [
                entry
                for entry in self._entries_of(mark, record)
                if after(place := entry[0].decode(), cursor)
                and (until == "+" or not after(place, until))
            ]
            if batch:
                yield batch

    def _archived_back(self, mark: ArchiveMark, since: str, before: str) -> Iterator[list[Any]]:
        bound = before.lstrip("(")
        excluded = before.startswith("(")
        for record in reversed(self._segments(mark)):
            batch = [
                entry
                for entry in reversed(self._entries_of(mark, record))
                if after(place := entry[0].decode(), since)
                and (bound == "+" or after(bound, place) or (place == bound and not excluded))
            ]
            if batch:
                yield batch
            if not after(record.first, since):
                return

    def _both(self, command: str, start: str, end: str) -> tuple[list[Any], ArchiveMark | None]:
        replies = self._client.pipeline(
            (
                (command, self._keys.log, start, end, "COUNT", COUNT),
                ("GET", self._keys.archive_mark),
            )
        )
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies[0], decode_mark(replies[1], self._keys)

    def _holding(
        self, mark: ArchiveMark, task: str, records: Collection[SegmentRecord]
    ) -> set[int]:
        """Which of these segments may hold something about ``task``: what their index says, and
        those it does not know."""
        numbers = {record.n for record in records}
        folder = self.folder(mark)
        if folder is None or not (folder / TASKS).is_file():
            return numbers
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_opened(folder)) as index:
            known = {n for (n,) in index.execute("SELECT n FROM segments")}
            query = "SELECT n FROM tasks WHERE task = ?"
            return (numbers - known) | {n for (n,) in index.execute(query, (task,))} & numbers
        return numbers


# -- beside the segments: which tasks they are about, and states ---------------------------------


def task_of_entry(entry: Entry) -> str:
    """The task that an entry of the log is about, "" for none."""
    fields = entry[1]
    return task_of(fields[11]) if len(fields) >= 12 else ""


def _opened(folder: Path, mode: str = "ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{(folder / TASKS).as_uri()}?mode={mode}", uri=True)


def index_tasks(folder: Path, record: SegmentRecord, tasks: Iterable[str]) -> None:
    """Write down which tasks a segment is about. An index that is no database gives way: without
    one all segments are looked through."""
    try:
        with contextlib.closing(_opened(folder, "rwc")) as index, index:
            index.execute("CREATE TABLE IF NOT EXISTS segments (n INTEGER PRIMARY KEY)")
            index.execute(
                "CREATE TABLE IF NOT EXISTS tasks (task TEXT, n INTEGER, PRIMARY KEY (task, n))"
                " WITHOUT ROWID"
            )
            rows = ((task, record.n) for task in sorted(tasks))
            index.executemany("INSERT OR IGNORE INTO tasks VALUES (?, ?)", rows)
            index.execute("INSERT OR IGNORE INTO segments VALUES (?)", (record.n,))
        (folder / TASKS).chmod(0o600)
    except sqlite3.DatabaseError:
        (folder / TASKS).unlink(missing_ok=True)


def state_file(folder: Path, record: SegmentRecord) -> Path:
    """Where the state at the end of a segment lies."""
    return folder / (record.file.partition(".")[0] + STATE)


def read_state(folder: Path, record: SegmentRecord) -> State | None:
    """The state at the end of a segment; None where there is none that this version can read."""
    try:
        state = decode_state(gzip.decompress(state_file(folder, record).read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return state if state is not None and parse_id(state.meta.log_id) <= _end(record) else None


def _end(record: SegmentRecord) -> tuple[int, int]:
    return parse_id(record.last)
