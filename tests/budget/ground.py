"""Ground of the budget tests: how much is run, the audit of a log, and two engines on one log."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import msgspec

from events.envelope import Event, decode
from events.policy import PolicyChanged
from projections import fold
from projections.state import State
from services.audit.check import Audit
from services.decider import Known
from services.engine.turn import Turn, run_turn
from services.store.client import SyncClient
from tests.examples import NOON
from tests.given import DECIDERS, Bus, wire_entry

PROVING = os.environ.get("ASB_TEST_PROVE") == "1"


def often(few: int, many: int) -> int:
    """How many rounds: few where every change waits for it, many when proving."""
    return many if PROVING else few


def say(text: str) -> None:
    """What a run counted: shown by pytest -s, and with a failure."""
    sys.stdout.write(f"\n{text}\n")


def audit_of(log: list[list[Any]]) -> Audit:
    """The audit of raw entries."""
    audit = Audit()
    for entry in log:
        audit.feed(entry)
    return audit


def raw_log(url: str, key: str) -> list[list[Any]]:
    """Every raw entry of a log in Redis."""
    client = SyncClient(url)
    try:
        return client.call("XRANGE", key, "-", "+")
    finally:
        client.close()


class Rivals(Bus):
    """Several engines without Redis which decide on the same intakes at the same time.

    Each turn every engine decides on what it knows. One reaches the log; the others find that it
    has moved, undo their turn and fold what they missed, as the append script makes them do.
    """

    def __init__(
        self,
        policy: PolicyChanged | None = None,
        at: int = NOON,
        *,
        engines: int = 2,
        seed: int = 1,
    ) -> None:
        super().__init__(policy, at)
        self.others = [State() for _ in range(engines - 1)]
        self.conflicts = 0
        self._chance = random.Random(seed)  # the tests print it

    @property
    def states(self) -> list[State]:
        """The state of every engine."""
        return [self.state, *self.others]

    def run(self) -> list[Event]:
        """Turns until all engines rest; the events that reached the log."""
        before = len(self.events)
        for _ in range(100_000):
            turns = [self._decide(state) for state in self.states]
            wanting = [i for i, turn in enumerate(turns) if turn.events or turn.more]
            if not wanting:
                for state in self.states:
                    state.rollback()
                self.refused += turns[0].refused
                del self._pending[: turns[0].consumed]
                return self.events[before:]
            self._settle(turns, self._chance.choice(wanting))
        raise AssertionError("the engines do not come to rest")

    def _decide(self, state: State) -> Turn:
        self._signs_of_life()
        ended = self.ever - {*state.tasks, *state.outcomes}
        inputs = msgspec.structs.replace(
            self.inputs,
            entries=list(self._pending),
            known=Known(dict(self.ids), frozenset(ended)),
        )
        state.begin()
        return run_turn(state, self.now, DECIDERS, inputs)

    def _settle(self, turns: list[Turn], first: int) -> None:
        """One turn reached the log."""
        entries = [wire_entry(event) for event in turns[first].events]
        for i, state in enumerate(self.states):
            if i == first:
                state.commit()
                continue
            self.conflicts += bool(turns[i].events)
            state.rollback()
            for entry in entries:
                fold.apply(state, decode(entry))
        self.keep(turns[first])
        for state in self.states:
            state.dirty_scopes.clear()
