"""An archive on disk: segments of the log, compressed, and the chain that names them.

A segment is a gzip file of JSON lines, one entry each: ``["<id>", ["<field>", "<value>", …]]``; an
entry that is not UTF-8 stands as ``{"id": …, "base64": […]}``. ``chain.jsonl`` has one record for
each segment; its ``chain`` is the SHA-256 of the record before and of all this one says, so nothing
can be changed, left out or put in without the chain saying where.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from services.runtime.errors import AsbError

Entry: TypeAlias = tuple[bytes, list[bytes]]  # as Redis answers: id, fields
CHAIN = "chain.jsonl"
ROOT = "0" * 64  # what the first record follows


class SegmentRecord(msgspec.Struct, frozen=True):
    """One segment: which file, which entries, its SHA-256, and its place in the chain."""

    n: int
    file: str
    first: str
    last: str
    entries: int
    sha256: str
    previous: str
    chain: str

    def expected(self) -> str:
        """What ``chain`` must be."""
        said = (self.previous, self.n, self.file, self.first, self.last, self.entries, self.sha256)
        return hashlib.sha256("\n".join(map(str, said)).encode()).hexdigest()


class PackedEntry(msgspec.Struct, frozen=True):
    """The line of an entry that is not UTF-8."""

    id: str
    base64: list[str]


class ArchiveBroken(AsbError):
    """The archive is not as it was written. The message names the segment."""


_record = msgspec.json.Decoder(SegmentRecord)
_line = msgspec.json.Decoder(tuple[str, list[str]] | PackedEntry)


def read_chain(folder: Path) -> list[SegmentRecord]:
    """The records of an archive, in order; none where there is no archive yet.

    Raises ArchiveBroken where one does not follow from the one before.
    """
    path = folder / CHAIN
    if not path.exists():
        return []
    chain: list[SegmentRecord] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = _record.decode(line)
        except msgspec.MsgspecError as error:
            raise _broken(path, f"line {number} is no record of a segment") from error
        before = chain[-1].chain if chain else ROOT
        if record.n != number or record.previous != before or record.chain != record.expected():
            raise _broken(path, f"record {number} does not follow from the one before it")
        chain.append(record)
    return chain


def check_file(folder: Path, record: SegmentRecord) -> None:
    """Raise ArchiveBroken unless a segment's file is, byte for byte, the one that was written."""
    path = folder / record.file
    if not path.is_file():
        raise _broken(path, f"segment {record.n} is missing")
    if _digest(path) != record.sha256:
        raise _broken(path, f"segment {record.n} ({record.first} to {record.last}) was changed")


def entries_of(folder: Path, record: SegmentRecord) -> Iterator[Entry]:
    """The raw entries of one segment. Raises ArchiveBroken where it cannot be read."""
    try:
        with gzip.open(folder / record.file, "rb") as lines:
            yield from (_decoded(line) for line in lines)
    except (OSError, EOFError, msgspec.MsgspecError, ValueError) as error:
        raise _broken(folder / record.file, f"segment {record.n}: {error}") from error


def write_segment(
    folder: Path, before: SegmentRecord | None, entries: Iterable[Entry]
) -> SegmentRecord:
    """Write the next segment: first the file, whole, then its record. Readable by its owner only,
    since it holds the words of tasks. A crash between the two leaves a file that the next try
    replaces."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = before.n + 1 if before is not None else 1
    name = f"{number:06}.jsonl.gz"
    partial = folder / f"{name}.part"
    first = last = ""
    count = 0
    with partial.open("wb") as raw:
        os.fchmod(raw.fileno(), 0o600)
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            for entry in entries:
                last = entry[0].decode()
                first, count = first or last, count + 1
                packed.write(_encoded(entry))
        raw.flush()
        os.fsync(raw.fileno())
    partial.rename(folder / name)
    previous = before.chain if before is not None else ROOT
    sha = _digest(folder / name)
    record = SegmentRecord(number, name, first, last, count, sha, previous, "")
    record = msgspec.structs.replace(record, chain=record.expected())
    with (folder / CHAIN).open("ab") as chain:
        os.fchmod(chain.fileno(), 0o600)
        chain.write(msgspec.json.encode(record) + b"\n")
        chain.flush()
        os.fsync(chain.fileno())
    _sync(folder)
    return record


def _encoded(entry: Entry) -> bytes:
    place, fields = entry
    try:
        line: Any = [place.decode(), [field.decode() for field in fields]]
    except UnicodeDecodeError:
        packed = [base64.b64encode(field).decode() for field in fields]
        line = PackedEntry(place.decode(), packed)
    return msgspec.json.encode(line) + b"\n"


def _decoded(line: bytes) -> Entry:
    value = _line.decode(line)
    if isinstance(value, PackedEntry):
        return value.id.encode(), [base64.b64decode(field) for field in value.base64]
    place, fields = value
    return place.encode(), [field.encode() for field in fields]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """A name survives a power loss only when its folder was written, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _broken(path: Path, problem: str) -> ArchiveBroken:
    hint = "restore it from a copy; the log itself is not touched by this"
    return ArchiveBroken(f"{path}: {problem}", hint=hint)
