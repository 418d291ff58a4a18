"""The log's raw entries, undecoded: for our own reader, and for those who judge it without that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from events.keys import Keys
from services.runtime.clock import elapsed
from services.store.client import SyncClient
from services.store.replies import Command

# Entries a read. What so many become fits into the cache of a core, and into the buffer of a
# socket, so that the next are there when they are wanted: with 1,000 a replay took a fifth longer.
COUNT = 250
COUNT_MAX = 4_000  # … from a server so far away that each read is waited for
START = "0-0"


def entries(
    client: SyncClient, keys: Keys, after: str = START, until: str = "+"
) -> Iterator[list[Any]]:
    """The raw entries after one place and up to another, in batches; the next is on its way while
    the caller works on one. Who waits for a batch longer than he works on one gets larger ones."""
    count, asked = COUNT, COUNT
    sent, wanted = float("-inf"), elapsed()

    def following(reply: list[Any]) -> Command | None:
        nonlocal count, asked, sent
        if len(reply) < asked:
            return None
        work, wait = wanted - sent, elapsed() - wanted
        if wait > work:
            count = min(2 * count, COUNT_MAX)
        elif 4 * wait < work:
            count = max(count // 2, COUNT)
        asked, sent = count, elapsed()
        return _range(keys, reply[-1][0].decode(), until, count)

    for reply in client.chain(_range(keys, after, until, count), following):
        if reply:
            yield reply
        wanted = elapsed()


def _range(keys: Keys, after: str, until: str, count: int) -> Command:
    return "XRANGE", keys.log, f"({after}", until, "COUNT", count
