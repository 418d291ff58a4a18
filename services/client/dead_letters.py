"""Dead letters as a client reads them, oldest first, and corrects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from projections.views import iso
from services.client.bus import Bus
from services.runtime.errors import CommandRefused, Refused
from services.store.log import parse_id

READ_COUNT = 1000
HEAD = (b"intake", b"entry", b"error", b"size")
Change = tuple[str, str]  # a field and its value, "" to take it away


class Letter(msgspec.Struct, frozen=True):
    """A dead letter. ``fields`` are those of the refused entry, names and values in turn; ``size``
    is how many bytes it had, which may be more than what was kept of it."""

    id: str
    intake: str
    entry: str
    error: str
    size: int
    fields: list[bytes]

    @property
    def kept(self) -> int:
        return sum(map(len, self.fields))

    @property
    def is_cut(self) -> bool:
        return self.size > self.kept

    @property
    def type(self) -> str:
        return shown(dict(zip(self.fields[::2], self.fields[1::2], strict=False)).get(b"type", b""))


def read(entry: Any) -> Letter:
    """A raw entry of the dead letters. Others may write there, too: nothing is certain."""
    entry_id, flat = entry
    fields: list[bytes] = list(flat)
    if tuple(fields[0:8:2]) != HEAD or not fields[7].isdigit():
        return Letter(entry_id.decode(), "", "", "", 0, fields)
    intake, place, error = (shown(value) for value in fields[1:6:2])
    return Letter(entry_id.decode(), intake, place, error, int(fields[7]), fields[8:])


def dead_letters(bus: Bus, after: str = "-") -> Iterator[Letter]:
    """The dead letters after the place ``after``, oldest first."""
    start = after if after == "-" else f"({after}"
    while True:
        entries = bus.client.call("XRANGE", bus.keys.deadletter, start, "+", "COUNT", READ_COUNT)
        yield from (read(entry) for entry in entries)
        if len(entries) < READ_COUNT:
            return
        start = f"({entries[-1][0].decode()}"


def dead_letter(bus: Bus, name: str) -> Letter:
    """The dead letter of this id, or that of an intake entry of this id. Raises Refused."""
    try:
        parse_id(name)
        entries = bus.client.call("XRANGE", bus.keys.deadletter, name, name)
    except (ValueError, CommandRefused):
        raise Refused(
            f"{name!r} is not the id of a dead letter", hint="`asb deadletter` lists them"
        ) from None
    if entries:
        return read(entries[0])
    for letter in dead_letters(bus):
        if letter.entry == name:
            return letter
    raise Refused(f"there is no dead letter {name}", hint="`asb deadletter` lists them")


def newest(bus: Bus, limit: int) -> list[Letter]:
    """The newest ``limit`` dead letters, all for 0, oldest first."""
    entries = bus.client.call(
        "XREVRANGE", bus.keys.deadletter, "+", "-", *(("COUNT", limit) if limit else ())
    )
    return [read(entry) for entry in reversed(entries)]


def last_dead_letter(bus: Bus) -> str:
    """The place of the newest."""
    reply = bus.client.call("XREVRANGE", bus.keys.deadletter, "+", "-", "COUNT", 1)
    return reply[0][0].decode() if reply else "0-0"


def dropped_count(bus: Bus) -> int:
    """How many dead letters had to go, the oldest first, for the bounds."""
    reported = bus.client.call("GET", bus.keys.deadletter_dropped)
    return int(reported) if reported is not None and reported.isdigit() else 0


def view(letter: Letter) -> dict[str, Any]:
    """A dead letter for programs. What is not UTF-8 is shown with ``\\xff`` marks."""
    pairs = zip(letter.fields[::2], letter.fields[1::2], strict=False)
    return {
        "id": letter.id,
        "at": iso(parse_id(letter.id)[0] * 1000),
        "intake": letter.intake,
        "entry": letter.entry,
        "type": letter.type,
        "error": letter.error,
        "size": letter.size,
        "cut": letter.is_cut,
        "fields": {shown(name): shown(value) for name, value in pairs},
    }


# -- correcting ----------------------------------------------------------------------------------


def corrected(letter: Letter, changes: Sequence[Change]) -> list[bytes]:
    """The fields of the entry with these changes, and with an idempotency key."""
    names = dict(zip(letter.fields[::2], letter.fields[1::2], strict=False))
    data: dict[str, Any] | None = None
    for name, value in changes:
        if name in ("type", "id", "time") or b"data" not in names:
            _set(names, name.encode(), value.encode() if value else None)
        else:
            data = _data(letter, names[b"data"]) if data is None else data
            _set(data, name, _value(value) if value else None)
    if data is not None:
        names[b"data"] = msgspec.json.encode(data)
    names.setdefault(b"id", f"retry-{letter.id}".encode())
    return [part for pair in names.items() for part in pair]


def _set(fields: dict[Any, Any], name: Any, value: Any) -> None:
    if value is None:
        fields.pop(name, None)
    else:
        fields[name] = value


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, lists, true), else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _data(letter: Letter, raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(
            f"the data of dead letter {letter.id} is no JSON object: no field of it can be set",
            hint=f"submit it anew, then: asb deadletter drop {letter.id}",
        ) from None


def shown(value: bytes) -> str:
    """Bytes as text; what is not UTF-8 with ``\\xff`` marks."""
    return value.decode("utf-8", "backslashreplace")
