"""Entries of the log at their places, also those that were cut off and carried: words of them are
still needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from events.keys import Keys
from services.store.client import Client, SyncClient
from services.store.replies import Command


def _asked(keys: Keys, places: Sequence[str]) -> Iterable[Command]:
    for place in places:
        yield ("XRANGE", keys.log, place, place)
    for place in places:
        yield ("XRANGE", keys.carried, place, place)


def _there(places: Sequence[str], replies: Sequence[Any]) -> dict[str, Any]:
    """The first of both that answers with an entry; a key of another type has none."""
    entries: dict[str, Any] = {}
    for place, reply in zip([*places, *places], replies, strict=True):
        if isinstance(reply, list) and reply:
            entries.setdefault(place, cast("list[Any]", reply)[0])
    return entries


def entries_at(client: SyncClient, keys: Keys, places: Iterable[str]) -> dict[str, Any]:
    """The raw entries at these places, in one round trip; what is gone is left out."""
    wanted = list(dict.fromkeys(places))
    return _there(wanted, client.pipeline(_asked(keys, wanted))) if wanted else {}


async def entries_now_at(client: Client, keys: Keys, places: Iterable[str]) -> dict[str, Any]:
    """The same, for those who must not block."""
    wanted = list(dict.fromkeys(places))
    return _there(wanted, await client.pipeline(_asked(keys, wanted))) if wanted else {}
