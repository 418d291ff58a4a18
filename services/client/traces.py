"""Is a text still in Redis? Its pieces are searched in the bytes the server keeps of every key of
the bus, and in its append-only file, with compression off: compressed bytes hide words."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from events.envelope import words_of
from events.keys import escaped
from services.client.bus import Bus
from services.runtime.errors import AsbError, CommandRefused, RedisUnsuitable
from services.store.replies import info_of

PIECE_MIN = 8  # characters: shorter ones stand anywhere
PIECE_MAX = 24
PIECES_MAX = 2_000
DUMP_MAX = 64 * 2**20  # bytes of a key: a longer one is looked for in the append-only file alone
READ_BYTES = 1 << 20
AOF_WAIT_S = 600.0
_ESCAPED = re.compile(r'[^\x00-\x1f"\\\x7f]+')  # runs that JSON writes as they are


class Trace(msgspec.Struct):
    """What was looked through, what was not, and where something was."""

    looked: list[str] = []
    left: list[str] = []
    places: list[str] = []


def words_on_log(bus: Bus, tasks: Collection[str]) -> list[str]:
    """Every text that somebody wrote for these tasks and that stands on the log. Errors and reasons
    are left out: the same few stand with many tasks."""
    wanted = frozenset(tasks)
    texts: list[str] = []
    for events in bus.read():
        for event in events:
            if event.origin and getattr(event.data, "task", "") in wanted:
                words = words_of(event)
                texts += _texts([v for name, v in words.items() if name not in ("error", "reason")])
    return texts


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(item)


def pieces_of(texts: Iterable[str]) -> list[bytes]:
    """What to search for: runs of each text that every writer of JSON writes in the same way, from
    its beginning, middle and end."""
    pieces: dict[bytes, None] = {}
    for text in texts:
        for run in _ESCAPED.findall(text):
            if len(run) < PIECE_MIN:
                continue
            middle = max(0, (len(run) - PIECE_MAX) // 2)
            for part in (run[:PIECE_MAX], run[middle : middle + PIECE_MAX], run[-PIECE_MAX:]):
                if not part.isascii():
                    pieces[ascii_escaped(part)] = None
                pieces[part.encode("utf-8", "surrogateescape")] = None
                if len(pieces) >= PIECES_MAX:
                    return list(pieces)
    return list(pieces)


def ascii_escaped(text: str) -> bytes:
    """``text`` as writers write it who escape all that is not ASCII."""
    return b"".join(
        c.encode() if c.isascii() else b"".join(b"\\u%04x" % unit for unit in _units(c))
        for c in text
    )


def _units(character: str) -> Iterator[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    for start in range(0, len(data), 2):
        yield int.from_bytes(data[start : start + 2], "big")


def search(bus: Bus, pieces: Collection[bytes]) -> Trace:
    """Look for ``pieces`` in every key of the bus and in the server's append-only file."""
    trace = Trace()
    pattern = re.compile(b"|".join(re.escape(piece) for piece in pieces))
    with _uncompressed(bus, trace) as uncompressed:
        if not uncompressed:
            return trace
        number = 0
        for key in _keys(bus):
            size: int = bus.client.call("MEMORY", "USAGE", key) or 0
            if size > DUMP_MAX:
                trace.left.append(f"{_shown(key)} in memory ({size // 2**20:,} MiB)")
                continue
            payload = bus.client.call("DUMP", key)
            number += 1
            if payload and (match := pattern.search(payload)):
                trace.places.append(f"{_shown(key)}: {_shown(match[0])}")
        trace.looked.append(f"{number:,} keys")
        _search_files(bus, pattern, trace)
    return trace


def _keys(bus: Bus) -> Iterator[bytes]:
    for pattern in (f"{escaped(bus.keys.namespace)}:*", f"{{{escaped(bus.keys.namespace)}:*"):
        yield from bus.client.scan(pattern)


@contextlib.contextmanager
def _uncompressed(bus: Bus, trace: Trace) -> Generator[bool]:
    """Compression off for a while; False where the server does not let us."""
    try:
        before = bus.client.everywhere("CONFIG", "GET", "rdbcompression")[0][1]
        bus.client.everywhere("CONFIG", "SET", "rdbcompression", "no")
    except (CommandRefused, RedisUnsuitable, IndexError):
        trace.left.append("anything: the server does not let compression be turned off")
        yield False
        return
    try:
        yield True
    finally:
        bus.client.everywhere("CONFIG", "SET", "rdbcompression", before)


def _search_files(bus: Bus, pattern: re.Pattern[bytes], trace: Trace) -> None:
    if not any(info.get("aof_enabled") == "1" for info in _persistence(bus)):
        return
    files = _aof_files(bus)
    if files is None:
        trace.left.append("the append-only file: it lies on another machine")
        return
    try:
        _rewrite_aof(bus)
    except (AsbError, CommandRefused) as error:
        trace.left.append(f"the append-only file: {error}")
        return
    for path in _aof_files(bus) or ():
        if where := _in_file(path, pattern):
            trace.places.append(f"{path}: {_shown(where)}")
        trace.looked.append(path.name)


def _aof_files(bus: Bus) -> list[Path] | None:
    """The files of the append-only log, where they are on this machine."""
    names = ("dir", "appenddirname", "appendfilename")
    settings = (bus.client.everywhere("CONFIG", "GET", name) for name in names)
    there: list[Path] = []
    for replies in zip(*settings, strict=True):  # of every server that holds a part of the bus
        values = (reply[1].decode() if len(reply) > 1 else "" for reply in replies)
        files = _files_in(*values)
        if not files:
            return None
        there += files
    return sorted(there)


def _files_in(folder: str, logs: str, name: str) -> list[Path]:
    """The files of one server, as it names their places; none where they are elsewhere."""
    if logs:
        paths = [*(Path(folder) / logs).glob("*.rdb"), *(Path(folder) / logs).glob("*.aof")]
    else:
        paths = [Path(folder) / name]
    return [path for path in paths if path.is_file()]


def _rewrite_aof(bus: Bus) -> None:
    """Anew, without compression. Raises CommandRefused."""
    _idle(bus)
    bus.client.everywhere("BGREWRITEAOF")
    _idle(bus)


def _idle(bus: Bus) -> None:
    until = time.monotonic() + AOF_WAIT_S
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    while any(info.get(name) == "1" for info in _persistence(bus) for name in busy):
        if time.monotonic() > until:
            raise CommandRefused("it is being rewritten for ten minutes already")
        time.sleep(0.05)


def _persistence(bus: Bus) -> list[dict[str, str]]:
    return [info_of(info) for info in bus.client.everywhere("INFO", "persistence")]


def _in_file(path: Path, pattern: re.Pattern[bytes]) -> bytes:
    """What of the pattern stands in a file, b"" for nothing."""
    with path.open("rb") as file:
        tail = b""
        while block := file.read(READ_BYTES):
            if match := pattern.search(tail + block):
                return match[0]
            tail = block[-200:]
    return b""


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
