"""The log's raw entries, undecoded, for those who judge it without our own reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from events.keys import Keys
from services.store.client import SyncClient

COUNT = 1_000


START = "0-0"


def entries(
    client: SyncClient, keys: Keys, after: str = START, until: str = "+"
) -> Iterator[list[Any]]:
    """The raw entries after one place and up to another, in batches."""
    while True:
        reply: list[Any] = client.call("XRANGE", keys.log, f"({after}", until, "COUNT", COUNT)
        if reply:
            after = reply[-1][0].decode()
            yield reply
        if len(reply) < COUNT:
            return
