"""The intake streams, read ahead: what stands there and was not yet taken in."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import anyio
import anyio.lowlevel

from events.keys import Keys
from services.decider import IntakeEntry
from services.runtime.clock import elapsed
from services.runtime.errors import CommandRefused
from services.store.client import Client
from services.store.lag import Lag
from services.store.log import after, parse_id
from services.store.scripts import script

logger = logging.getLogger("asb")

READ_COUNT = 500
AHEAD_MAX = 2_000
BLOCK_MS = 1_000
KEPT_S = 3_600.0  # how long an entry stays after it was taken in
CLOSED_S = 2.0  # how often an intake that is no stream is looked at again


class Intakes:
    """Reads every intake in order. What was peeked stays until it is dropped, so a turn that did
    not reach the log sees the same entries again."""

    def __init__(self, client: Client, keys: Keys, arrived: Callable[[], None]) -> None:
        """``arrived`` is called when entries are there, within the reply that brought them."""
        self._client, self._keys, self._arrived = client, keys, arrived
        self._positions: dict[str, str] = {keys.main_intake: "0-0"}
        self._ahead: deque[IntakeEntry] = deque()
        self._first_since = 0.0  # when the first of them became the first
        self._generation = 0
        self._cursors = 0
        self._closed: set[str] = set()  # intakes whose key is no stream
        self._looked_at = 0.0
        self._taken: Lag[Mapping[str, str]] = Lag(KEPT_S)
        self._room = anyio.Event()
        self.taken = "0-0"  # the newest entry of the shared intake that we took in

    def __len__(self) -> int:
        return len(self._ahead)

    @property
    def names(self) -> frozenset[str]:
        """The intakes that are read."""
        return frozenset(self._positions)

    def open(self, intake: str) -> None:
        """Read this intake too."""
        self._positions.setdefault(intake, "0-0")

    def open_all(self, cursors: Mapping[str, str]) -> None:
        """Read every intake that the log knows of; ``cursors`` only grows."""
        if len(cursors) != self._cursors:
            self._cursors = len(cursors)
            for intake, cursor in cursors.items():
                self._positions.setdefault(intake, cursor)

    def reset(self, cursors: Mapping[str, str]) -> None:
        """Begin again behind the entries that the log has taken."""
        self._generation += 1
        self._taken.forget()
        self._ahead.clear()
        self._positions = {intake: cursors.get(intake, "0-0") for intake in self._positions}
        self._positions.update(cursors)
        self._room.set()

    def peek(self, count: int, behind: int = 0) -> list[IntakeEntry]:
        """Up to ``count`` entries, ``behind`` the first so many."""
        return list(islice(self._ahead, behind, behind + count))

    def drop(self, count: int) -> None:
        """The first ``count`` entries are taken in."""
        for _ in range(count):
            entry = self._ahead.popleft()
            if entry.intake == self._keys.main_intake:
                self.taken = entry.id
        if count:
            self._first_since = elapsed()
        self._room.set()

    def drop_taken(self, cursors: Mapping[str, str]) -> None:
        """Drop what another engine has taken in, by its cursors."""
        marks = {intake: parse_id(cursor) for intake, cursor in cursors.items()}
        first = self._ahead[0] if self._ahead else None
        self._ahead = deque(
            e for e in self._ahead if e.intake not in marks or parse_id(e.id) > marks[e.intake]
        )
        if self._ahead and self._ahead[0] is not first:
            self._first_since = elapsed()
        for intake, cursor in cursors.items():
            if after(cursor, self._positions.get(intake, "0-0")):
                self._positions[intake] = cursor
        self._room.set()

    def waited_s(self) -> float | None:
        """For how long the first waiting entry has been the first, by our own clock; None when none
        waits."""
        return elapsed() - self._first_since if self._ahead else None

    async def read_once(self) -> None:
        """Read what is there, or wait for it; returns within about a second."""
        if len(self._ahead) >= AHEAD_MAX:
            self._room = anyio.Event()
            await self._room.wait()
            return
        intakes = self._readable()
        if not intakes:
            await anyio.sleep(CLOSED_S)
            return
        groups = self._client.together(intakes)
        if len(groups) == 1:
            await self._read(intakes)
            return
        until = elapsed() + BLOCK_MS / 1_000
        reads = [asyncio.ensure_future(self._read_until(group, until)) for group in groups]
        try:
            await asyncio.gather(*reads)
        finally:
            for read in reads:
                read.cancel()

    async def _read_until(self, intakes: Sequence[str], until: float) -> None:
        """Read these for a while: others may fill up meanwhile."""
        while elapsed() < until and len(self._ahead) < AHEAD_MAX and intakes[0] not in self._closed:
            await self._read(intakes)

    async def _read(self, intakes: Sequence[str]) -> None:
        """Read intakes that one command may name."""
        generation = self._generation
        try:
            await self._client.block(
                "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", *intakes,
                *(self._positions[intake] for intake in intakes),
                listener=lambda reply: self._take_in(reply, generation),
            )  # fmt: skip
            await anyio.lowlevel.checkpoint()  # first a turn that is not sent yet, then more
        except CommandRefused as error:
            await self._find_closed(intakes, error)

    def _take_in(self, reply: Any, generation: int) -> None:
        if not reply or generation != self._generation:
            return
        for key, entries in reply:
            intake = key.decode()
            position = parse_id(
                self._positions[intake]
            )  # another engine may have moved it meanwhile
            for entry_id, fields in entries:
                place = entry_id.decode()
                if fields is not None and parse_id(place) > position:
                    if not self._ahead:
                        self._first_since = elapsed()
                    self._ahead.append(IntakeEntry(intake, place, fields))
            if parse_id(place := entries[-1][0].decode()) > position:
                self._positions[intake] = place
        self._arrived()

    def _readable(self) -> list[str]:
        """The intakes to read; one that was no stream is tried again from time to time."""
        if self._closed and anyio.current_time() - self._looked_at > CLOSED_S:
            self._looked_at = anyio.current_time()
            return list(self._positions)
        return [intake for intake in self._positions if intake not in self._closed]

    async def _find_closed(self, intakes: Sequence[str], error: CommandRefused) -> None:
        """Something else than a stream stands where an intake should be: the others are read on."""
        types = await self._client.pipeline(("TYPE", intake) for intake in intakes)
        closed = {
            intake: kind.decode()
            for intake, kind in zip(intakes, types, strict=True)
            if isinstance(kind, bytes) and kind not in (b"stream", b"none")
        }
        for intake in closed.keys() - self._closed:
            logger.error(
                "the intake %s is a %s, not a stream: delete that key", intake, closed[intake]
            )
        if not closed:
            logger.warning("the intakes cannot be read: %s", error)
            await anyio.sleep(0.1)
        self._closed = self._closed.difference(intakes) | closed.keys()
        self._looked_at = anyio.current_time()

    async def expel(self, intake: str, ids: Sequence[str], first_ahead: str, cursor: str) -> None:
        """Entries ``ids`` of ``intake``, which are among the dead letters, leave it, and it goes on
        from where it was; what came behind them is put back with new ids."""
        await script("expel")(self._client, [intake], [first_ahead, cursor, *ids])
        self._generation += 1
        self._ahead = deque(e for e in self._ahead if e.intake != intake)
        self._positions[intake] = cursor
        self._room.set()
        logger.warning("the intake %s was ahead of its time by %s; it was set back", intake, ids[0])

    async def trim(self, cursors: Mapping[str, str]) -> None:
        """Forget entries that had been taken in an hour ago. Called about once a minute."""
        for intake, cursor in (self._taken.put(dict(cursors)) or {}).items():
            try:
                await self._client.call("XTRIM", intake, "MINID", "~", cursor)
            except CommandRefused as error:
                logger.warning("the intake %s cannot be trimmed: %s", intake, error)

    async def mark_unclean(self, entries: Mapping[str, str]) -> None:
        """These entries, by intake, are to leave within the hour. Said before what is made of them
        is appended, so that no crash forgets it."""
        if not entries:
            return
        pairs = (part for pair in entries.items() for part in pair)
        await self._client.call("HSET", self._keys.unclean, *pairs)
