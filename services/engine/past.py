"""The past a host stands on: folded from the log, and again where the log went back."""

from __future__ import annotations

import contextlib
import gc
import logging

import anyio

from events.log import START, after, parse_id
from projections.state import State
from services.decider import Inputs, PastLost
from services.projector import Setup
from services.runtime.errors import BeginningLost, CommandRefused, RedisUnsuitable
from services.store import rebuild
from services.store.beginning import Beginning, entries_from_start
from services.store.client import SyncClient
from services.store.history import folder_of
from services.store.position import Position

logger = logging.getLogger("asb")

GC_EVERY = 50_000
CUT_TRIES = 10  # how often a snapshot of a log cut by hand is looked for
CUT_PAUSE_S = 1.0


class Past:
    """Makes states of the log."""

    def __init__(
        self, setup: Setup, position: Position, beginning: Beginning, inputs: Inputs
    ) -> None:
        self._client, self._keys = setup.client, setup.keys
        self._archives = folder_of(setup.settings)
        self._position, self._beginning, self._inputs = position, beginning, inputs

    def fold(self) -> State:
        """The state from the log; whatever was in memory is worth nothing any more. Raises LogError
        and RedisUnavailable."""
        foreign: list[str] = []
        with contextlib.closing(SyncClient(self._client.url, self._keys.log)) as client:
            first = client.call(*entries_from_start(self._keys))
            state = rebuild.rebuild(client, self._keys, foreign=foreign, archives=self._archives)
        self._position.begin(foreign)
        self._beginning.restored(first)
        # Turns make many records and no cycles: looking for these every 700 costs a third more.
        gc.freeze()
        gc.set_threshold(GC_EVERY, 20, 20)
        return state

    async def fold_again(self, before: State) -> State:
        """The last event of ``before`` is not on the log any more: fold what it still says, and
        have the next turn tell of it."""
        meta, untold = before.meta, self._inputs.past_lost
        was, said = meta.log_id, meta.went_back or START
        if untold is not None and not after(said, untold.said):
            was = max(was, untold.was, key=parse_id)
        self._position.used_up(was)
        state = await self._fold_patiently()
        if self._beginning.was_cut_behind(was):
            return state  # what this host had not folded was trimmed: nothing went back
        now = state.meta.log_id
        logger.warning("the log went back from %s to %s; it was folded again from there", was, now)
        self._inputs.past_lost = PastLost(was, now, said)
        await self._forget_torn_tail()
        return state

    async def _fold_patiently(self) -> State:
        """Where somebody cut the log, a host that knew it to its end keeps a snapshot soon."""
        for _ in range(CUT_TRIES):
            with contextlib.suppress(BeginningLost):
                return self.fold()
            await anyio.sleep(CUT_PAUSE_S)
        return self.fold()

    async def _forget_torn_tail(self) -> None:
        """Have Redis write its file anew. A tail torn within a transaction stays in the file, and
        the next start would run that half together with what was written since (shown)."""
        with contextlib.suppress(CommandRefused, RedisUnsuitable):
            await self._client.call("BGREWRITEAOF")
