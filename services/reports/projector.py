"""Daily reports, out to ``asb:report:<date>`` and ``asb:tokens:report``: wiring only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from events.envelope import Event
from events.keys import Keys
from projections.state import State
from services.projector import Projector, Setup
from services.runtime.errors import CommandRefused
from services.store.client import Client
from services.store.log import after, decoded
from services.store.scripts import script

LOOKED_AT = 40  # reports looked at after a start: more than a month of them


class DailyReports(Projector):
    """Writes and publishes every ``report.issued``.

    A report is published before it is written and looked up before it is published: after a
    crash a message may repeat, and none is left out.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        super().__init__()
        self._client, self._keys = client, keys
        self._pending: list[Event] = []
        self._missing: list[str] = []

    def feed(self, events: Sequence[Event], state: State) -> None:
        for event in events:
            if event.data.type == "report.issued":
                self._pending.append(event)
                self.wake()

    def restored(self, state: State) -> None:
        """Look whether the newest reports stand where they belong."""
        newest = sorted(state.reports.items())[-LOOKED_AT:]
        self._missing = [known.log_id for _, known in newest if known.log_id]
        self.wake()

    async def flush(self, woken: bool) -> None:
        """Write and publish what is pending."""
        await self._find_missing()
        while self._pending:
            await self._out(self._pending[0])
            del self._pending[0]

    async def _find_missing(self) -> None:
        places, log = self._missing, self._keys.log
        replies = await self._client.all(("XRANGE", log, p, p) for p in places)
        events = decoded(list(_entries(replies)))
        waiting = {event.log_id for event in self._pending}
        self._pending[:0] = [event for event in events if event.log_id not in waiting]
        self._missing = []

    async def _out(self, event: Event) -> None:
        key = self._keys.report(event.data.date)
        if await self._stands(key, event.log_id):
            return
        body = msgspec.json.encode(message(event))
        await self._client.call("PUBLISH", self._keys.report_channel, body)
        await script("view")(self._client, [key], [event.log_id, body, 0])

    async def _stands(self, key: str, log_id: str) -> bool:
        """Whether this report, or a newer one of its day, stands there already."""
        try:
            there = await self._client.call("GET", key)
            return bool(there) and not after(log_id, _as_of(there))
        except (CommandRefused, msgspec.MsgspecError, ValueError, KeyError, TypeError):
            return False  # somebody wrote something else there


def _entries(replies: list[Any]) -> Iterator[Any]:
    """The log entries that are (still) there."""
    for reply in replies:
        yield from reply if isinstance(reply, list) else ()


def _as_of(view: bytes) -> str:
    return str(msgspec.json.decode(view, type=dict[str, Any])["as_of"])


def message(event: Event) -> dict[str, Any]:
    """A report as it is published and kept: the seed's shape, then where it comes from."""
    return {**event.data.report, "event": event.id, "as_of": event.log_id}


def projectors(setup: Setup) -> list[Projector]:
    """What the reports service projects."""
    return [DailyReports(setup.client, setup.keys)]
