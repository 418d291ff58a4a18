"""The front doors, read ahead: what stands there and was not yet taken in."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

import anyio

from events.keys import Keys
from services.runtime.client import Client, CommandRefused
from services.runtime.clock import elapsed
from services.runtime.lag import Lag
from services.runtime.log import after, parse_id
from services.runtime.scripts import script
from services.turn import DoorEntry

logger = logging.getLogger("asb")

READ_COUNT = 500
AHEAD_MAX = 2_000
BLOCK_MS = 1_000
KEPT_S = 3_600.0  # how long an entry stays after it was taken in
CLOSED_S = 2.0  # how often a door that is no stream is looked at again


class Doors:
    """Reads every door in order. What was peeked stays until it is dropped, so a turn that did
    not reach the log sees the same entries again."""

    def __init__(self, client: Client, keys: Keys, wake: anyio.Event | None = None) -> None:
        self._client, self._keys = client, keys
        self._positions: dict[str, str] = {keys.main_door: "0-0"}
        self._ahead: deque[DoorEntry] = deque()
        self._first_since = 0.0  # when the first of them became the first
        self._generation = 0
        self._cursors = 0
        self._closed: set[str] = set()  # doors whose key is no stream
        self._looked_at = 0.0
        self._taken: Lag[Mapping[str, str]] = Lag(KEPT_S)
        self._room = anyio.Event()
        self.wake = wake or anyio.Event()

    def __len__(self) -> int:
        return len(self._ahead)

    @property
    def names(self) -> frozenset[str]:
        """The doors that are read."""
        return frozenset(self._positions)

    def open(self, door: str) -> None:
        """Read this door too."""
        self._positions.setdefault(door, "0-0")

    def open_all(self, cursors: Mapping[str, str]) -> None:
        """Read every door that the log knows of; ``cursors`` only grows."""
        if len(cursors) != self._cursors:
            self._cursors = len(cursors)
            for door, cursor in cursors.items():
                self._positions.setdefault(door, cursor)

    def reset(self, cursors: Mapping[str, str]) -> None:
        """Begin again behind the entries that the log has taken."""
        self._generation += 1
        self._taken.forget()
        self._ahead.clear()
        self._positions = {door: cursors.get(door, "0-0") for door in self._positions}
        self._positions.update(cursors)
        self._room.set()

    def peek(self, count: int) -> list[DoorEntry]:
        return list(islice(self._ahead, count))

    def drop(self, count: int) -> None:
        """The first ``count`` entries are taken in."""
        for _ in range(count):
            self._ahead.popleft()
        if count:
            self._first_since = elapsed()
        self._room.set()

    def drop_taken(self, cursors: Mapping[str, str]) -> None:
        """Drop what another desk has taken in, by its cursors."""
        marks = {door: parse_id(cursor) for door, cursor in cursors.items()}
        first = self._ahead[0] if self._ahead else None
        self._ahead = deque(
            e for e in self._ahead if e.door not in marks or parse_id(e.id) > marks[e.door]
        )
        if self._ahead and self._ahead[0] is not first:
            self._first_since = elapsed()
        for door, cursor in cursors.items():
            if after(cursor, self._positions.get(door, "0-0")):
                self._positions[door] = cursor
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
        generation, doors = self._generation, self._readable()
        if not doors:
            await anyio.sleep(CLOSED_S)
            return
        try:
            reply = await self._client.block(
                "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", *doors,
                *(self._positions[d] for d in doors),
            )  # fmt: skip
        except CommandRefused as error:
            await self._find_closed(doors, error)
            return
        if not reply or generation != self._generation:
            return
        for key, entries in reply:
            door = key.decode()
            position = parse_id(self._positions[door])  # another desk may have moved it meanwhile
            for entry_id, fields in entries:
                place = entry_id.decode()
                if fields is not None and parse_id(place) > position:
                    if not self._ahead:
                        self._first_since = elapsed()
                    self._ahead.append(DoorEntry(door, place, fields))
            if parse_id(place := entries[-1][0].decode()) > position:
                self._positions[door] = place
        self.wake.set()

    def _readable(self) -> list[str]:
        """The doors to read; one that was no stream is tried again from time to time."""
        if self._closed and anyio.current_time() - self._looked_at > CLOSED_S:
            self._looked_at = anyio.current_time()
            return list(self._positions)
        return [door for door in self._positions if door not in self._closed]

    async def _find_closed(self, doors: Sequence[str], error: CommandRefused) -> None:
        """Something else than a stream stands where a door should be: the others are read on."""
        types = await self._client.pipeline(("TYPE", door) for door in doors)
        closed = {
            door: kind.decode()
            for door, kind in zip(doors, types, strict=True)
            if isinstance(kind, bytes) and kind not in (b"stream", b"none")
        }
        for door in closed.keys() - self._closed:
            logger.error("the door %s is a %s, not a stream: delete that key", door, closed[door])
        if not closed:
            logger.warning("the doors cannot be read: %s", error)
            await anyio.sleep(0.1)
        self._closed = set(closed)
        self._looked_at = anyio.current_time()

    async def expel(self, door: str, ids: Sequence[str], first_ahead: str, cursor: str) -> None:
        """Entries ``ids`` of ``door``, which are among the dead letters, leave it, and it goes on
        from where it was; what came behind them is put back with new ids."""
        await script("expel")(self._client, [door], [first_ahead, cursor, *ids])
        self._generation += 1
        self._ahead = deque(e for e in self._ahead if e.door != door)
        self._positions[door] = cursor
        self._room.set()
        logger.warning("the door %s was ahead of its time by %s; it was set back", door, ids[0])

    async def trim(self, cursors: Mapping[str, str]) -> None:
        """Forget entries that had been taken in an hour ago. Called about once a minute."""
        for door, cursor in (self._taken.put(dict(cursors)) or {}).items():
            try:
                await self._client.call("XTRIM", door, "MINID", "~", cursor)
            except CommandRefused as error:
                logger.warning("the door %s cannot be trimmed: %s", door, error)
