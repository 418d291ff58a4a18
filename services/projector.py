"""What a projector is: it folds nothing itself, it writes what follows from events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from events.envelope import Event
from events.keys import Keys
from projections.state import State
from services.runtime.settings import Settings
from services.store.client import Client
from services.store.log import Note
from services.store.prompts import Texts
from services.store.scripts import script

PAUSE_S = 0.1
LOOK_S = 5.0  # how often it is looked whether the views still stand there
Render = Callable[[State], Mapping[str, Any]]


class Projector:
    """Writes what is not the log: wakes when told of news, flushes, and is awake again where a
    flush failed, so that nothing is forgotten while Redis is away.

    ``look_s``: it flushes at least that often, told of news or not; None for never.
    ``takes_notes``: what it writes may be written by the script that appends a turn.
    """

    look_s: float | None = None
    takes_notes = False

    def __init__(self) -> None:
        self._wake = anyio.Event()

    def feed(self, events: Sequence[Event], state: State) -> None:
        """Committed events, in order, and the state after them. Must not wait."""

    def notes(self, events: Sequence[Event], state: State) -> Sequence[Note] | None:
        """Notes of events that were decided, for the script that appends these; ``state`` is the
        one after them. None: there can be none now, it is to be fed instead."""
        return None

    def noted(self, notes: Sequence[Note], written: bool) -> None:
        """The events were appended, and the notes of them ``written`` or not: not fed."""

    def restored(self, state: State) -> None:
        """The state was rebuilt, or Redis was away."""

    def stands(self) -> None:
        """For a moment no turn is ahead of the log: whoever waits for that looks at the state
        before the next one is decided."""

    def figures(self) -> Mapping[str, str | int]:
        """Counters of its own for the heartbeat of its service."""
        return {}

    def wake(self) -> None:
        """There is something to flush."""
        self._wake.set()

    async def run(self) -> None:
        """Wait until there is something to write, and write it; called again and again. Raises
        RedisUnavailable."""
        with anyio.move_on_after(self.look_s):
            await self._wake.wait()
        woken, self._wake = self._wake.is_set(), anyio.Event()
        try:
            await self.flush(woken)
        except BaseException:
            self.wake()
            raise

    async def flush(self, woken: bool) -> None:
        """Write what is pending. ``woken``: there were news, it is not only time to look again."""


class Reader(Projector):
    """A projector that reads the whole state, at moments of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._state = State()
        self._stands: anyio.Event | None = None  # somebody waits for that

    def feed(self, events: Sequence[Event], state: State) -> None:
        self.restored(state)

    def restored(self, state: State) -> None:
        self._state = state

    def stands(self) -> None:
        if self._stands is not None:
            self._stands.set()
            self._stands = None

    async def settled(self) -> State:
        """The state, at a moment when nothing in it is on its way to the log."""
        while self._state.ahead:
            if self._stands is None:
                self._stands = anyio.Event()
            await self._stands.wait()
        return self._state


class Views(Reader):
    """Keeps one Redis key per view, rendered from committed state."""

    look_s = LOOK_S

    def __init__(self, client: Client, views: Mapping[str, Render]) -> None:
        super().__init__()
        self._client, self._renders = client, views

    def restored(self, state: State) -> None:
        super().restored(state)
        self.wake()

    async def flush(self, woken: bool) -> None:
        """Write the views, where they are stale or gone."""
        if not woken and await self._stand():
            return
        state = await self.settled()
        log_id = state.meta.log_id
        rendered = {k: msgspec.json.encode(r(state)) for k, r in self._renders.items()}
        for key, value in rendered.items():
            await script("view")(self._client, [key], [log_id, value, 0])
        await anyio.sleep(PAUSE_S)

    async def _stand(self) -> bool:
        """Whether every view is there, and nothing else in its place."""
        there = await self._client.types(self._renders)
        return all(there.get(key) == "string" for key in self._renders)


class Setup(msgspec.Struct, frozen=True):
    """What a host and its projectors are made of: connection, keys, prompts and settings."""

    client: Client
    keys: Keys
    texts: Texts
    settings: Settings
