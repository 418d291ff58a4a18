"""The log's raw entries, undecoded: for our own reader, and for those who judge it without that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from events.keys import Keys
from events.log import START
from services.runtime.clock import elapsed
from services.store.client import SyncClient
from services.store.replies import Command

# Entries a read. What so many become fits into the cache of a core, and into the buffer of a
# socket, so that the next are there when they are wanted: with 1,000 a replay took a fifth longer.
COUNT = 250
COUNT_MAX = 4_000  # … from a server so far away that each read is waited for


def entries(
    client: SyncClient, keys: Keys, after: str = START, until: str = "+"
) -> Iterator[list[Any]]:
    """The raw entries after one place and up to another, in batches."""
    for (batch,) in batches(client, keys, after, until):
        if batch:
            yield batch


def batches(
    client: SyncClient, keys: Keys, after: str, until: str, *behind: Command
) -> Iterator[list[Any]]:
    """Each batch of raw entries, the last one perhaps empty, with the replies to the commands
    ``behind`` it: about keys of the log's slot, which are looked at after the batch was read.

    The next batch is on its way while the caller works on one. Who waits for a batch longer than he
    works on one gets larger ones.
    """
    count = COUNT
    sent, wanted = float("-inf"), elapsed()

    def following(replies: list[Any]) -> Sequence[Command]:
        nonlocal count, sent
        batch = replies[0]
        if len(batch) < count:
            return ()
        work, wait = wanted - sent, elapsed() - wanted
        if wait > work:
            count = min(2 * count, COUNT_MAX)
        elif 4 * wait < work:
            count = max(count // 2, COUNT)
        sent = elapsed()
        return _range(keys, batch[-1][0].decode(), until, count), *behind

    for replies in client.chain((_range(keys, after, until, count), *behind), following):
        yield replies
        wanted = elapsed()


def _range(keys: Keys, after: str, until: str, count: int) -> Command:
    return "XRANGE", keys.log, f"({after}", until, "COUNT", count


class _TaskOfEvent(msgspec.Struct):
    task: str = ""


_named = msgspec.json.Decoder(_TaskOfEvent)


def task_of(data: bytes) -> str:
    """The task that an event of the log is about, by its data; "" for none."""
    if b'"task":"' not in data:
        return ""
    try:
        return _named.decode(data).task
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
