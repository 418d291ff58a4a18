"""Which tasks an intake entry may be about. PURE."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

import msgspec

from services.decider import IntakeEntry

_NAMED = re.compile(rb'"task"\s*:\s*("(?:[^"\\]|\\.)*")')


def tasks_of(entry: IntakeEntry, main_intake: str) -> Iterator[str]:
    """Every task that an entry may be about: those it names, also where it was cut or is no JSON,
    and the one it would have become."""
    yield entry.id
    if name := entry.intake.removeprefix(main_intake).removeprefix(":"):
        yield f"{name}.{entry.id}"
    for field, value in zip(entry.fields[0::2], entry.fields[1::2], strict=False):
        if field == b"task":
            yield value.decode(errors="replace")
        for quoted in _NAMED.findall(value):
            yield _read(quoted)


def _read(quoted: bytes) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def is_about(entry: IntakeEntry, main_intake: str, tasks: Container[str]) -> bool:
    """Whether an entry may hold words of one of ``tasks``."""
    return any(task in tasks for task in tasks_of(entry, main_intake))
