"""The files of a data folder: locks, short texts, the server's log, and who wrote the data."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator
from pathlib import Path

import msgspec
from msgspec import Struct

from services.store.redis_server import Identity, identity_of

LOG_KEPT_BYTES = 1_000_000
RECORD = "server.json"
MULTI_PART_AOF = (7, 0, 0)  # from here on the append-only file is a folder
HEAD_BYTES = 4096  # what an RDB file says of its writer stands in its first lines


class Record(Struct, frozen=True):
    """Which server runs, or ran last, on the folder, and why that one; see ServerBinary."""

    identity: Identity
    program: str
    origin: str
    passed_over: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.identity.shown}, {self.origin}: {self.program}"


# -- who wrote the data ------------------------------------------------------------------------


def record_of(folder: Path) -> Record | None:
    """What stands in the folder about its server; None where nothing readable does."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    return None


def write_record(folder: Path, record: Record) -> None:
    write_text(folder / RECORD, msgspec.json.encode(record).decode())


def written_by(folder: Path) -> Identity | None:
    """The server that wrote the folder's data last; None where there is no data.

    Folders of earlier versions hold no record: the head of their append-only file tells.
    """
    parts, single = folder / "appendonlydir", folder / "appendonly.aof"
    if not single.exists() and not (parts.is_dir() and any(parts.iterdir())):
        return None
    if record := record_of(folder):
        return record.identity
    if not parts.is_dir():
        return _writer_of(single) or Identity("redis", (6, 2, 0))
    oldest = Identity("redis", MULTI_PART_AOF)
    writer = _writer_of(_base_of(parts)) or oldest
    # A file of 6.2 that a later Redis took over keeps its head.
    return writer if writer.version >= MULTI_PART_AOF else oldest


def _base_of(parts: Path) -> Path:
    """The file that the log of many parts begins with, as its manifest names it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        manifest = (parts / "appendonly.aof.manifest").read_text(encoding="utf-8")
        if match := re.search(r"^file (\S+) seq \d+ type b", manifest, re.MULTILINE):
            return parts / match[1]
    return parts / "appendonly.aof.1.base.rdb"


def _writer_of(file: Path) -> Identity | None:
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError:
        return None
    # An RDB file, or an append-only file that was rewritten: REDIS0010 … redis-ver 7.0.15 …
    match = re.match(
        rb"(?:REDIS|VALKEY)\d+\xfa.(redis|valkey)-ver.(\d+\.\d+\.\d+)", head, re.DOTALL
    )
    return identity_of(match[1].decode(), match[2].decode()) if match else None


# -- locks and texts ---------------------------------------------------------------------------


def try_lock(path: Path) -> int | None:
    """An exclusive lock on ``path`` as an open file; None if somebody holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared: two who only look do not take each other for a server.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold ``path``'s lock; waits for as long as another start may take."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(f"{text}\n", encoding="utf-8")
    temporary.replace(path)


def rotated(log: Path) -> int:
    """Keep the log from growing for ever; its size now, so that new lines can be told."""
    size = log.stat().st_size if log.exists() else 0
    if size > LOG_KEPT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
        return 0
    return size


def last_lines(log: Path, start: int, count: int = 12) -> str:
    try:
        with log.open("rb") as file:
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "(nothing)"
    return "\n".join(text.strip().splitlines()[-count:]) or "(nothing)"
