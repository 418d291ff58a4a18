"""What an engine looks after beside its turns: heartbeats, intakes, the log's head, eviction, words
that are to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio

from projections.records import ALIVE
from projections.state import State
from services.decider import Inputs
from services.engine.removal import WordRemoval
from services.engine.trouble import Work
from services.engine.worker_watch import LOOK_S, WorkerWatch
from services.projector import Setup
from services.store.beginning import Beginning
from services.store.eviction_watch import EvictionWatch
from services.store.intakes import Intakes
from services.store.log import Log
from services.store.position import Position
from services.store.unregistered_intakes import UnregisteredIntakes

TRIM_S = 60.0  # how often intakes are trimmed


class Upkeep:
    """Each work runs by itself: one that has to wait holds up no other. ``state`` is asked for each
    time: another takes its place when the log went back."""

    def __init__(
        self,
        setup: Setup,
        log: Log,
        position: Position,
        inputs: Inputs,
        intakes: Intakes,
        state: Callable[[], State],
    ) -> None:
        self.watch = WorkerWatch(setup.client, setup.keys)
        self.beginning = Beginning(setup.client, setup.keys, log, position, inputs)
        self._eviction = EvictionWatch(setup.client, inputs)
        self._unregistered = UnregisteredIntakes(setup.client, setup.keys)
        self._intakes, self._state = intakes, state
        self._words = WordRemoval(setup, inputs, state)
        self._wake: Callable[[], None] = lambda: None

    def works(self, wake: Callable[[], None], *, reads_intakes: bool) -> Iterator[Work]:
        """What to run again and again; ``wake`` has a turn follow."""
        self._wake = wake
        yield from (self.watch_workers, self.trim_intakes, self.guard, self.watch_eviction)
        yield self.remove_words
        if reads_intakes:
            yield self.watch_unregistered_intakes

    async def watch_workers(self) -> None:
        """Look for the workers' heartbeats."""
        workers = self._state().workers.values()
        await self.watch.look([w for w in workers if w.status == ALIVE and w.heartbeat])
        await anyio.sleep(LOOK_S)

    async def trim_intakes(self) -> None:
        """Forget what was taken in an hour ago."""
        await anyio.sleep(TRIM_S)
        await self._intakes.trim(self._state().intakes)

    async def guard(self) -> None:
        """See to it that the log keeps its beginning."""
        await self.beginning.guard(self._state, self._wake)

    async def watch_eviction(self) -> None:
        """Look whether the server drops keys."""
        await self._eviction.look(self._state, self._wake)

    async def watch_unregistered_intakes(self) -> None:
        """Look for intakes that nobody opened."""
        await self._unregistered.watch(self._intakes.names)

    async def remove_words(self) -> None:
        """Take out of the streams what is to be forgotten."""
        await self._words.look(self._wake)
