"""Is what a worker saw and said still on the server? Redis gives no sign when it went back."""

from __future__ import annotations

import contextlib
from typing import Any

from services.runtime.errors import CommandRefused
from services.store.client import Client

CLOCK_OFF_S = 1.0  # time that an entry seems to have lost: the server's clock is read again


def order(entry_id: bytes) -> tuple[int, int]:
    """A stream entry id as something that compares; (0, 0) for what is none."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        return 0, 0


async def last_id(client: Client, stream: str) -> bytes | None:
    """The last id that ``stream`` gave out, ``0-0`` where there is none."""
    try:
        flat = await client.call("XINFO", "STREAM", stream)
    except CommandRefused:
        return b"0-0"  # no such key
    return dict(zip(flat[::2], flat[1::2], strict=False)).get(b"last-generated-id")


async def still_there(client: Client, intake: str, entry: bytes) -> bool:
    """Whether ``entry`` of ours stands at the intake, or was trimmed there in its time."""
    if order(await last_id(client, intake) or entry) < order(entry):
        return False
    for start in (entry, b"-"):  # the second: the oldest entry the intake still has
        entries = await client.call("XRANGE", intake, start, "+", "COUNT", 1)
        if not entries or entries[0][0] == entry:
            return True
    return order(entries[0][0]) > order(entry)


def clock_is_off(entries: list[Any], now: float) -> bool:
    """Whether an attempt seems to have lost some of its time: it has come late, or the server's
    clock has stepped back since it was read. ``now`` is the server's time, in seconds."""
    for _, flat in entries:
        fields = dict(zip(flat[::2], flat[1::2], strict=False)) if flat else {}
        with contextlib.suppress(ValueError):
            left = int(fields.get(b"deadline") or 0) / 1e6 - now
            if left < int(fields.get(b"timeout_s") or 0) - CLOCK_OFF_S:
                return True
    return False
