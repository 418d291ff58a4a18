"""Is what a worker saw and said still on the server? Redis gives no sign when it went back."""

from __future__ import annotations

from services.runtime.errors import CommandRefused
from services.store.client import Client


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
        found = await client.call("XRANGE", intake, start, "+", "COUNT", 1)
        if not found or found[0][0] == entry:
            return True
    return order(found[0][0]) > order(entry)
