"""The side channel by which a command tells its usage: a file that its answer cannot reach.

``ASB_USAGE_FILE`` names it: readable and writable by its user alone (0600), under a name nobody can
guess in a folder of its own. The command (or a script around it) writes JSON lines there, or one
object laid out as it likes; the last complete one that tells tokens counts. In a shell file
descriptor 3 is the same file, open for appending: ``echo '{"input_tokens": 5}' >&3``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import msgspec

from events.readings import Report, find
from events.tokens import read

UNREADABLE = "unreadable"  # in place of what was written: it may be anything
VARIABLE = "ASB_USAGE_FILE"
READ_BYTES = 256 * 1024  # of its end; how much a command writes is its own affair
LEFT_S = 3_600.0  # a folder this old that nobody holds was left by a worker
_PREFIX = "asb-usage-"

_decode = msgspec.json.Decoder().decode


class UsageFile:
    """One run's file. Raises OSError where none can be made."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # 0700
        self.path = self._folder / secrets.token_hex(16)
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._held = os.open(self._folder, os.O_RDONLY)  # as long as this process lives
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes it
            fcntl.flock(self._held, fcntl.LOCK_EX)

    def read(self) -> Report:
        """What it tells now; nothing where the command put something else in its place."""
        try:
            return last_usage(self._end())
        except OSError:
            return Report()

    def _end(self) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # neither a link nor a pipe to wait at
        descriptor = os.open(self.path, flags)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                return b""
            start = max(0, about.st_size - READ_BYTES)
            data = os.pread(descriptor, READ_BYTES, start)
        finally:
            os.close(descriptor)
        return data.partition(b"\n")[2] if start else data

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)
        os.close(self._held)


def remove_left() -> None:
    """Remove the files of workers that were killed together with what supervised their command."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # no folder, held, or gone meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                about = os.fstat(descriptor)
                if about.st_uid == os.getuid() and time.time() - about.st_mtime > LEFT_S:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def last_usage(data: bytes) -> Report:
    """The usage in the one object that ``data`` is, else in the last line that is an object with
    usage. A line cut short is none. What holds no object at all was meant to tell something: that
    it cannot be read is told."""
    whole = as_object(data)
    if whole is not None:
        return find(whole)
    entries = [entry for line in data.splitlines() if (entry := as_object(line)) is not None]
    for entry in reversed(entries):
        report = find(entry)
        if report.reading.says_something:
            return report
    if entries or not data.strip():
        return Report()
    return Report(read(UNREADABLE), raw=UNREADABLE)


def as_object(data: bytes) -> dict[str, Any] | None:
    """``data`` as a JSON object, None where it is none."""
    bare = data.strip().removeprefix(b"\xef\xbb\xbf")
    if not (bare.startswith(b"{") and bare.endswith(b"}")):
        return None
    try:
        value: object = _decode(bare)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
