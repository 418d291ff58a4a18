"""Dead letters as a client reads them, oldest first."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.client.bus import Bus


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused intake entry."""

    id: str  # its place among the dead letters
    intake: str
    entry: str
    error: str


def dead_letters(bus: Bus, after: str = "-") -> Iterator[DeadLetter]:
    """The dead letters after the place ``after``, oldest first."""
    start = after if after == "-" else f"({after}"
    while True:
        entries = bus.client.call("XRANGE", bus.keys.deadletter, start, "+", "COUNT", READ_COUNT)
        for entry_id, fields in entries:
            names = dict(zip(fields[0:6:2], fields[1:6:2], strict=True))
            yield DeadLetter(
                entry_id.decode(),
                *(
                    names.get(n, b"").decode("utf-8", "replace")
                    for n in (b"intake", b"entry", b"error")
                ),
            )
        if len(entries) < READ_COUNT:
            return
        start = f"({entries[-1][0].decode()}"


def last_dead_letter(bus: Bus) -> str:
    reply = bus.client.call("XREVRANGE", bus.keys.deadletter, "+", "-", "COUNT", 1)
    return reply[0][0].decode() if reply else "0-0"


READ_COUNT = 1000
