"""The archive: what the log says, in files that show when somebody changed them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from events.envelope import without_words
from events.keys import Keys
from services.archive.copying import Archive
from services.runtime.errors import AsbError
from services.store.client import SyncClient
from services.store.history import read_mark
from services.store.segments import CHAIN, ArchiveBroken, entries_of, read_chain

FIRST = "log:0123456789abcdef"


@pytest.fixture
def sync(redis_url: str) -> Generator[SyncClient]:
    with contextlib.closing(SyncClient(redis_url)) as opened:
        yield opened


def put(client: SyncClient, keys: Keys, number: int, *, start: int = 1) -> None:
    """Entries as the log holds them; the first one names the log."""
    for n in range(start, start + number):
        fields = ("type", "policy.changed", "id", FIRST if n == 1 else f"e{n}", "source", "t")
        rest = ("from", "", "at", str(n), "data", json.dumps({"v": 1, "reason": f"n° {n}"}))
        client.call("XADD", keys.log, f"{n}-0", *fields, *rest)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def test_what_came_since_is_added_and_every_entry_is_as_the_log_says(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    put(sync, keys, 25)
    archive = Archive(sync, keys, tmp_path)
    assert [s.entries for s in archive.extend(10, words=True)] == [10, 10, 5]
    assert archive.extend(10) == []
    put(sync, keys, 7, start=26)
    sync.call("XADD", keys.log, "40-0", b"f\xff", b"\x00\xfe")  # somebody else's, and no UTF-8
    [more] = archive.extend(10, words=True)
    assert (more.n, more.first, more.last, more.entries) == (4, "26-0", "40-0", 8)
    segments = archive.verify()
    archived = [e for s in segments for e in entries_of(archive.folder, s)]
    assert archived == [(e[0], e[1]) for e in sync.call("XRANGE", keys.log, "-", "+")]
    modes = {path.stat().st_mode & 0o077 for path in archive.folder.iterdir()}
    assert modes == {0}


@pytest.mark.parametrize("offset", [0, 12, 60, -1])
def test_a_flipped_byte_is_found_and_its_segment_named(
    sync: SyncClient, keys: Keys, tmp_path: Path, offset: int
) -> None:
    put(sync, keys, 30)
    archive = Archive(sync, keys, tmp_path)
    archive.extend(10)
    flip(archive.folder / "000002.jsonl.gz", offset)
    with pytest.raises(ArchiveBroken, match=r"segment 2 \(11-0 to 20-0\) was changed") as caught:
        archive.verify()
    assert caught.value.hint


def test_a_record_that_was_changed_left_out_or_added_breaks_the_chain(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    put(sync, keys, 30)
    archive = Archive(sync, keys, tmp_path)
    archive.extend(10)
    path = archive.folder / CHAIN
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for broken, what in (
        (first + third, "record 2 does not follow"),
        (first + second.replace(b'"entries":10', b'"entries":11') + third, "record 2 does not"),
        (whole + third, "record 4 does not follow"),
        (whole + b"{}\n", "line 4 is no record"),
        (first, "does not end as Redis says"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ArchiveBroken, match=what):
            archive.verify()
        with pytest.raises(ArchiveBroken, match=what):
            archive.extend(10)
    path.write_bytes(whole)
    assert len(archive.verify()) == 3


def test_a_segment_that_was_made_to_fit_the_chain_is_not_what_the_log_says(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    """Given somebody who can count hashes anew, the mark in Redis and the log itself stand."""
    put(sync, keys, 10)
    archive = Archive(sync, keys, tmp_path)
    [record] = archive.extend(10)
    path = archive.folder / record.file
    lines = gzip.decompress(path.read_bytes())
    other = lines.replace(rb"n\\u00b0 3", rb"n\\u00b0 4")
    assert other != lines
    path.write_bytes(gzip.compress(other))
    forged = msgspec.structs.replace(record, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    forged = msgspec.structs.replace(forged, chain=forged.expected())
    (archive.folder / CHAIN).write_bytes(msgspec.json.encode(forged) + b"\n")
    with pytest.raises(ArchiveBroken, match="does not end as Redis says"):
        archive.verify()
    mark = read_mark(sync, keys)
    assert mark is not None
    mark = msgspec.structs.replace(mark, last=forged)
    sync.call("SET", keys.archive_mark, msgspec.json.encode(mark))
    archive = Archive(sync, keys, tmp_path)
    with pytest.raises(ArchiveBroken, match="entry 3-0 is not what the log says"):
        archive.verify()


def test_a_crash_between_file_and_record_and_mark_is_made_good(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    put(sync, keys, 20)
    archive = Archive(sync, keys, tmp_path)
    archive.extend(10)
    records = read_chain(archive.folder)
    mark = read_mark(sync, keys)
    assert mark is not None
    before = msgspec.json.encode(msgspec.structs.replace(mark, last=records[0]))
    # The record of the second is not written yet, nor the mark moved.
    (archive.folder / CHAIN).write_bytes(msgspec.json.encode(records[0]) + b"\n")
    sync.call("SET", keys.archive_mark, before)
    archive = Archive(sync, keys, tmp_path)
    assert [r.n for r in archive.extend(10)] == [2]
    assert len(archive.verify()) == 2
    # The record is written, the mark is not.
    sync.call("SET", keys.archive_mark, before)
    archive = Archive(sync, keys, tmp_path)
    assert len(archive.verify()) == 2
    assert archive.extend(10) == []
    mark = read_mark(sync, keys)
    assert mark is not None
    assert mark.last == records[1]


def test_a_log_that_went_back_is_not_archived_over(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    put(sync, keys, 20)
    archive = Archive(sync, keys, tmp_path)
    archive.extend(10)
    sync.call("XDEL", keys.log, "20-0")
    with pytest.raises(AsbError, match="does not hold 20-0, with which its archive ends"):
        archive.extend(10)
    assert sync.call("DEL", keys.log, keys.archive_mark)
    with pytest.raises(AsbError, match="the log is empty"):
        Archive(sync, keys, tmp_path)


def test_a_mark_that_somebody_else_wrote_is_named(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    put(sync, keys, 3)
    archive = Archive(sync, keys, tmp_path)
    archive.extend(10)
    sync.call("SET", keys.archive_mark, "mine")
    with pytest.raises(ArchiveBroken, match="holds no record of asb") as caught:
        Archive(sync, keys, tmp_path)
    assert keys.archive_mark in caught.value.hint


def test_what_was_forgotten_since_is_no_change_and_leaves_with_a_new_archive(
    sync: SyncClient, keys: Keys, tmp_path: Path
) -> None:
    """Given an archive of words that the log has forgotten since, then it still stands for that
    log; another word in their place does not, and written anew it holds them no more."""
    put(sync, keys, 3)
    data = {"v": 1, "task": "t", "marks": {"text": [5, "d"]}, "words": {"text": "Abernathy"}}
    fields = ("type", "task.submitted", "id", "e", "source", "t", "from", "", "at", "4", "data")
    sync.call("XADD", keys.log, "4-0", *fields, json.dumps(data, separators=(",", ":")))
    archive = Archive(sync, keys, tmp_path)
    archive.extend(2, words=True)
    sync.call("DEL", keys.log)
    put(sync, keys, 3)
    raw = without_words(json.dumps(data, separators=(",", ":")).encode(), 77)
    sync.call("XADD", keys.log, "4-0", *fields, raw)
    assert len(archive.verify()) == 2
    assert "Abernathy" in words_in(archive)
    archive.renew(3, lambda entry: entry, words=True)
    assert len(archive.verify()) == 2
    assert "Abernathy" not in words_in(archive)
    assert [path.name for path in tmp_path.iterdir()] == [archive.folder.name]
    sync.call("DEL", keys.log)
    put(sync, keys, 3)
    sync.call("XADD", keys.log, "4-0", *fields, raw.replace(b'"t"', b'"u"'))
    with pytest.raises(ArchiveBroken, match="4-0 is not what the log says"):
        archive.verify()


def words_in(archive: Archive) -> str:
    files = archive.folder.glob("*.gz")
    return "".join(gzip.decompress(path.read_bytes()).decode() for path in files)
