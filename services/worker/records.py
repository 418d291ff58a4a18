"""Which session of an agent an attempt is: written down before it spends anything.

Where worker and supervisor are killed at once nobody is left to tell what the attempt used; the
agent's own transcript still does, and this file says which one. It lies in the data folder, one
JSON object a line, and is cut off by age and size alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

log = logging.getLogger("asb.worker")

FILE_BYTES = 4 * 2**20  # then it becomes the old one, and a new one begins


class AttemptRecord(msgspec.Struct, frozen=True):
    """An attempt and its session: ``folder`` is where the agent keeps its transcripts, ``since``
    (µs) when the attempt began, for a session may be older than that."""

    task: str
    attempt: int
    worker: str
    agent: str
    session: str
    folder: str
    since: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AttemptRecord).decode


def path_in(data_dir: Path) -> Path:
    """Where the records of a data folder lie."""
    return data_dir.expanduser() / "agents" / "attempts.jsonl"


def write(path: Path, record: AttemptRecord) -> None:
    """Add a record. One that cannot be written is no reason not to work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > FILE_BYTES:
                path.replace(path.with_suffix(".old"))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, _encode(record) + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        log.warning("should it be killed, what task %s used stays unknown: %s", record.task, error)


def read(path: Path) -> Iterator[AttemptRecord]:
    """All records, oldest first; the last one of an attempt stands for it."""
    newest: dict[tuple[str, int, str], AttemptRecord] = {}
    for part in (path.with_suffix(".old"), path):
        try:
            lines = part.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError):  # cut short by a full disk
                record = _decode(line)
                newest[record.task, record.attempt, record.session] = record
    yield from newest.values()
