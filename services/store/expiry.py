"""Tasks whose words have been kept for as long as they may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from events.envelope import ForeignEntry, UnsupportedEvent, decode
from events.keys import Keys
from events.log import START
from services.store.client import Client
from services.store.raw_entries import task_of

COUNT = 500
ENDS = frozenset((b"task.completed", b"task.failed", b"task.cancelled"))


async def expired_tasks(
    client: Client, keys: Keys, before: int, alive: Callable[[], Awaitable[None]]
) -> set[str]:
    """The tasks that ended before ``before`` (µs) and of which words stand on the log."""
    worded: set[str] = set()
    expired: set[str] = set()
    cursor = START
    while True:
        await alive()
        entries = await client.call("XRANGE", keys.log, f"({cursor}", "+", "COUNT", COUNT)
        for place, fields in entries:
            if len(fields) < 12:
                continue
            task = task_of(fields[11])
            if not task:
                continue
            if b'"words":' in fields[11]:
                worded.add(task)
            if fields[1] in ENDS and ends_before((place, fields), before):
                expired.add(task)
            elif fields[1] == b"task.submitted":
                expired.discard(task)
        if len(entries) < COUNT:
            return worded & expired
        cursor = entries[-1][0].decode()


def ends_before(entry: tuple[bytes, list[bytes]], before: int) -> bool:
    """Whether a task ends with this entry of the log, and did so before ``before`` (µs)."""
    try:
        event = decode(entry)
    except (ForeignEntry, UnsupportedEvent):
        return False
    again = getattr(event.data, "retry_at", 0)
    return event.at < before and not event.data.stale and not again
