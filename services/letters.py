"""What of a rejected entry is kept: what was written, with its secrets masked. PURE."""

from __future__ import annotations

from collections import Counter

import msgspec

from events import secrets
from services.decider import IntakeEntry, Rejection

# What is longer is not looked through, or one entry would hold up the engine for seconds: the rest
# is not kept, and the entry leaves its intake as one that holds a secret does.
LOOKED_AT = 1_114_112  # bytes: more than is ever kept of one, so that no secret is cut in two there
SHOWN_MIN = 6  # characters: a shorter beginning of a secret says nothing
NOTED = "masked in what is kept"


def masked(letter: Rejection) -> Rejection:
    """``letter`` as it is where its entry holds no secret; else masked, and so said in its error.
    An error may quote the beginning of a value."""
    letter = _looked_at(letter)
    fields = letter.entry.fields
    if not any(secrets.may_hold(field) for field in fields):
        return letter
    counts: Counter[str] = Counter()
    clean: list[bytes] = []
    for name, value in zip(fields[0::2], fields[1::2], strict=False):
        clean += (secrets.masked_json(name, counts), _value(name, value, counts))
    if not counts:
        return letter
    error = secrets.masked(_without_beginnings(letter.error, fields))
    entry = msgspec.structs.replace(letter.entry, fields=clean)
    return msgspec.structs.replace(
        letter, entry=entry, error=f"{error} ({NOTED}: {secrets.said(counts)})"
    )


def may_hold(entry: IntakeEntry) -> bool:
    """Whether there may be a secret in ``entry``."""
    return _size(entry) > LOOKED_AT or secrets.may_hold(b" ".join(entry.fields))


def _size(entry: IntakeEntry) -> int:
    return sum(map(len, entry.fields))


def _looked_at(letter: Rejection) -> Rejection:
    """``letter`` with no more of its entry than is looked through."""
    size = _size(letter.entry)
    if size <= LOOKED_AT:
        return letter
    room, fields = LOOKED_AT, list[bytes]()
    for field in letter.entry.fields:
        fields.append(field[:room])
        room -= len(fields[-1])
    entry = msgspec.structs.replace(letter.entry, fields=fields)
    return msgspec.structs.replace(letter, entry=entry, size=size)


def _value(name: bytes, value: bytes, counts: Counter[str]) -> bytes:
    """A flat field says by its name what it is: ``password hunter2``."""
    clean = secrets.masked_json(value, counts)
    if clean is not value:
        return clean
    seen: Counter[str] = Counter()
    read = {name.decode(errors="replace"): value.decode(errors="replace")}
    plain = secrets.masked_value(read, seen)
    counts.update(seen)
    return next(iter(plain.values())).encode() if seen else value


def _without_beginnings(error: str, fields: list[bytes]) -> str:
    """The error without the beginnings of the secrets in ``fields``, where it quotes them."""
    for text in (field.decode(errors="replace") for field in fields):
        for hit in secrets.find(text):
            value = text[hit.start : hit.end]
            size = next((n for n in range(len(value), SHOWN_MIN, -1) if value[:n] in error), 0)
            if size:
                error = error.replace(value[:size], secrets.mask_of(hit.kind))
    return error
