"""The fold: one event after the other, by the functions that the files of this room register.

``apply`` is pure seen from outside: no clock, no random, no I/O, no float. Importing this module
loads every fold, so no process folds only some types of event.
"""

from __future__ import annotations

from events.envelope import Event, Payload, Unknown
from events.task import TaskDelivered
from events.usage import UsageCompared
from events.worker import WorkerRefused
from projections import (
    accounts,
    alerts,
    attempts,
    clock,
    continuity,
    ends,
    eviction,
    forgetting,
    policy,
    progress,
    reports,
    routing,
    spending,
    tasks,
    workers,
)
from projections.state import FOLDS, State, folds

FILES = (
    accounts,
    *(alerts, attempts, clock, continuity, ends, eviction, forgetting, policy, progress),
    *(reports, routing, spending, tasks, workers),
)


@folds(Unknown)
def unknown(state: State, _event: Event[Unknown]) -> None:
    """An event of another version of asb, which this one may skip."""
    state.meta.unknown += 1


@folds(TaskDelivered, WorkerRefused)
def no_change(_state: State, _event: Event[TaskDelivered | WorkerRefused]) -> None:
    """A fact for people, not for the state."""


@folds(UsageCompared)
def compared(state: State, event: Event[UsageCompared]) -> None:
    """Meters of one attempt, side by side: nothing is charged."""
    if event.data.alert:
        state.meta.compared_said = event.log_id


def apply(state: State, event: Event) -> None:
    """Fold one event, the next on the log."""
    meta = state.meta
    meta.log_id = event.log_id
    meta.events += 1
    if event.at != meta.at:
        clock.moves(state, event)
        if event.at > meta.clock:
            meta.clock = event.at
        if event.at > meta.latest:
            meta.latest = event.at
    if event.origin:
        intake, _, entry = event.origin.rpartition(" ")
        state.journal.put(state.intakes, intake, entry)
    payload: type[Payload] = event.data.__class__
    counts = state.tallies.events
    counts[payload.type] = counts.get(payload.type, 0) + 1
    FOLDS[payload](state, event)
