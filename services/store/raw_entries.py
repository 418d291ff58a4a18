"""The log's raw entries, undecoded: for our own reader, and for those who judge it without that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from events.keys import Keys
from services.store.client import SyncClient
from services.store.replies import Command

COUNT = 1_000  # entries a read: 5,000 was measured 19 % slower


START = "0-0"


def entries(
    client: SyncClient, keys: Keys, after: str = START, until: str = "+"
) -> Iterator[list[Any]]:
    """The raw entries after one place and up to another, in batches; the next is on its way while
    the caller works on one."""

    def following(reply: list[Any]) -> Command | None:
        return None if len(reply) < COUNT else _range(keys, reply[-1][0].decode(), until)

    for reply in client.chain(_range(keys, after, until), following):
        if reply:
            yield reply


def _range(keys: Keys, after: str, until: str) -> Command:
    return "XRANGE", keys.log, f"({after}", until, "COUNT", COUNT
