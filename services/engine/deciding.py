"""A turn is decided: what the deciders are told, what they say, and which notes go with it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from projections.state import State
from services.decider import Decider, Inputs, IntakeEntry, Known
from services.engine.lookups import Lookups
from services.engine.news import News
from services.engine.turn import EVENTS_AHEAD, EVENTS_MAX, Turn, run_turn
from services.engine.worker_watch import WorkerWatch
from services.projector import Projector, Setup
from services.runtime.clock import ServerClock
from services.store.log import Base, Log
from services.store.position import Position
from services.store.secret import Secret


class Decided(msgspec.Struct):
    """A turn that is folded and not yet appended, and the entry of the log it was decided on."""

    turn: Turn
    base: Base
    news: News | None


class Deciding:
    """Runs the deciders of a host over its state."""

    def __init__(
        self,
        setup: Setup,
        deciders: Sequence[Decider],
        projectors: Sequence[Projector],
        inputs: Inputs,
        position: Position,
        clock: ServerClock,
        watch: WorkerWatch,
    ) -> None:
        self._deciders, self._projectors, self._inputs = deciders, projectors, inputs
        self._texts, self._log = setup.texts, Log(setup.client, setup.keys)
        self._lookups = Lookups(setup.client, setup.keys, self._log, deciders)
        self.secret = Secret(setup.client, setup.keys)
        self._position, self._clock, self._watch = position, clock, watch
        self.reads_intakes = any(decider.asks is not None for decider in deciders)

    def awaits_text(self, state: State) -> bool:
        """Whether a task still waits for its route: its prompt is to be fetched first."""
        routes = any(decider.reads_prompts for decider in self._deciders)
        return routes and state.indexes.next_undelegated() is not None

    async def next(self, state: State, entries: Sequence[IntakeEntry]) -> Decided:
        """The next turn. Raises RedisUnavailable, and LogError where the log has no place left."""
        inputs = self._inputs
        inputs.known = await self._lookups.known(state, entries, self._clock.now())
        await self._texts.fetch(self._log, state)
        inputs.secret = await self.secret.value()
        return self._decided(state, entries, EVENTS_MAX)

    def at_once(self, state: State, entries: Sequence[IntakeEntry]) -> Decided | None:
        """The next turn without a wait; None where Redis has to be asked first. Raises LogError."""
        if not self._inputs.secret or self._has_to_ask(state, entries):
            return None
        return self._decided(state, entries, EVENTS_MAX)

    def ahead(self, state: State, entries: Sequence[IntakeEntry]) -> Decided | None:
        """As ``at_once``, the turn after one that is on its way to the log."""
        if self._has_to_ask(state, entries):
            return None
        state.dirty_scopes.clear()  # the turn before has looked at them
        return self._decided(state, entries, EVENTS_AHEAD)

    def _has_to_ask(self, state: State, entries: Sequence[IntakeEntry]) -> bool:
        self._inputs.known = Known()
        return self._lookups.asked(state, entries) is not None or self._texts.missing(state)

    def _decided(self, state: State, entries: Sequence[IntakeEntry], events_max: int) -> Decided:
        inputs = self._inputs
        inputs.entries = entries
        inputs.texts, inputs.overlay = self._texts, self._texts.overlay
        inputs.foreign = self._position.foreign
        inputs.step, inputs.latest = self._clock.step, self._clock.latest
        inputs.absent_us, inputs.found_us = self._watch.seen()
        base, floor = self._position.base(state), self._position.floor(state)
        state.begin()
        try:
            now = self._clock.now()
            turn = run_turn(state, now, self._deciders, inputs, floor, events_max)
            news = News(self._projectors, turn.events, state) if turn.events else None
        except BaseException:
            state.rollback()
            raise
        return Decided(turn, base, news)
