"""Looks after the log's beginning while a host lives that still knows it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio

from events.keys import Keys
from events.log import START, after, begins
from projections.state import State
from services.decider import Inputs
from services.runtime.errors import AsbError
from services.store.client import Client
from services.store.history import decode_mark
from services.store.log import Log, decoded
from services.store.position import Position

logger = logging.getLogger("asb")
GUARD_S = 1.0  # how often it is looked whether the log still begins where it did
COUNT = 100  # entries that are looked at where it does not
PAUSE_S = 0.01


def entries_from_start(keys: Keys, count: int = COUNT) -> tuple[str | int, ...]:
    """The command for the first entries of the log."""
    return ("XRANGE", keys.log, "-", "+", "COUNT", count)


def first_of(entries: list[Any]) -> str:
    """The id of the first of these entries."""
    return entries[0][0].decode() if entries else START


def _is_cut(entries: list[Any]) -> bool:
    """Whether a log that holds ``entries`` first does not begin with its first event."""
    events = decoded(entries)
    return not events or not begins(events[0])


class Beginning:
    """Somebody may trim the log by hand. A host that lives still knows what stood there, and keeps
    it where the next start finds it: without that a log cut short is refused."""

    def __init__(
        self, client: Client, keys: Keys, log: Log, position: Position, inputs: Inputs
    ) -> None:
        self._client, self._keys, self._log = client, keys, log
        self._position, self._inputs = position, inputs
        self._first, self._cut = "", False  # "": it was not looked since the log began

    def restored(self, entries: list[Any]) -> None:
        """The log, which begins with ``entries``, was folded from there or from a snapshot."""
        # One cut to nothing before the first look must not pass for the empty log of the start.
        self._first = first_of(entries) if entries else ""
        self._cut = _is_cut(entries)
        self._inputs.trimmed = ""

    def was_cut_behind(self, place: str) -> bool:
        """Whether the entry at ``place`` is missing because the log begins behind it now, cut by
        hand, and not because it went back."""
        return self._cut and bool(self._first) and after(self._first, place)

    async def guard(self, state: Callable[[], State], wake: Callable[[], None]) -> None:
        """One look, after a pause. ``wake`` lets a turn tell of what was found."""
        await anyio.sleep(GUARD_S)
        if first_of(await self._client.call(*entries_from_start(self._keys, 1))) == self._first:
            return
        entries = await self._client.call(*entries_from_start(self._keys))
        first = first_of(entries)
        if first == self._first or not state().meta.events:
            return
        if not await self._log.holds(self._position.base(state())):
            return  # it went back, or another began: the next turn sees it
        self._cut = _is_cut(entries)
        if self._cut and not await self._is_archived(first):
            logger.error("the log was trimmed by hand: it begins at %s now", first)
            self._inputs.trimmed = first
            wake()
            await self._keep(state)
        self._first = first

    async def _is_archived(self, first: str) -> bool:
        """Whether what stood before ``first`` is in the archive: asb itself cut the log there."""
        try:
            mark = decode_mark(await self._client.call("GET", self._keys.archive_mark), self._keys)
        except AsbError:
            return False
        return mark is not None and mark.cut > 0 and not after(first, mark.begins)

    async def _keep(self, state: Callable[[], State]) -> None:
        """Keep what is in memory, as soon as the event it stands at is on the log."""
        while True:
            place = state().meta.log_id
            there = await self._client.call("XRANGE", self._keys.log, place, place)
            known = state()
            if there and not known.ahead:
                await self._client.call("SET", self._keys.snapshot, known.encode())
                logger.warning("what stood before it is kept in a snapshot, and the bus goes on")
                return
            await anyio.sleep(PAUSE_S)
