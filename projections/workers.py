"""Workers as the log knows them: sessions, capacity, what each runs."""

from __future__ import annotations

from collections.abc import Iterable

from events.envelope import Event
from events.worker import (
    IntakeOpened,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPaused,
    WorkerResumed,
    WorkerState,
    WorkerTwin,
)
from projections.records import LEFT, LOST, Worker
from projections.state import State, folds


@folds(WorkerJoined)
def joined(state: State, event: Event[WorkerJoined]) -> None:
    """A session opens; what an earlier one of the same name held becomes orphaned, except the
    attempts the worker says, with evidence, it still runs."""
    payload = event.data
    old = state.workers.get(payload.worker)
    worker = Worker(
        payload.worker,
        payload.session,
        payload.agent or "",
        payload.models,
        payload.capacity,
        payload.account or "",
        payload.lease_s,
        payload.heartbeat,
        payload.instance,
        joined_at=event.at,
        running={},
        cheap=payload.cheap,
        capable=payload.capable,
    )
    if old is not None:
        worker.paused = old.paused
        worker.completed, worker.failed = old.completed, old.failed
        worker.dispatched, worker.last_kind = old.dispatched, old.last_kind
        kept = {held.task: held.attempt for held in payload.holds}
        for task_id, attempt in old.running.items():
            if kept.get(task_id) == attempt:
                task = state.tasks[task_id]
                state.journal.touch(task)
                task.session = payload.session
                worker.running[task_id] = attempt
    state.journal.put(state.workers, payload.worker, worker)
    if old is not None:
        _index(state, old.running.keys() - worker.running.keys())


@folds(WorkerLeft, WorkerLost)
def ended(state: State, event: Event[WorkerLeft | WorkerLost]) -> None:
    """``worker.left`` and ``worker.lost``: the session is over, what it ran is orphaned."""
    payload = event.data
    worker = state.workers.get(payload.worker)
    if worker is None or (payload.session and payload.session != worker.session):
        return
    state.journal.touch(worker)
    worker.status = LEFT if isinstance(payload, WorkerLeft) else LOST
    left, worker.running = worker.running, {}
    _index(state, left)


def _index(state: State, tasks: Iterable[str]) -> None:
    """These have no worker any more."""
    for task in tasks:
        state.index(state.tasks[task])


@folds(WorkerState)
def agent_state(state: State, event: Event[WorkerState]) -> None:
    """What its agent does now."""
    payload, worker = event.data, state.workers.get(event.data.worker)
    if worker is None:
        return
    state.journal.touch(worker)
    worker.agent_state, worker.agent_since = payload.state, payload.since
    worker.agent_by, worker.agent_about = payload.by, payload.about
    if payload.asks:
        state.meta.agent_said = event.log_id


@folds(WorkerTwin)
def twin_seen(state: State, event: Event[WorkerTwin]) -> None:
    """An alert, and nothing else: its usage is charged when it ends."""
    state.meta.agent_said = event.log_id


@folds(WorkerPaused)
def paused(state: State, event: Event[WorkerPaused]) -> None:
    _pause(state, event.data.worker, True)


@folds(WorkerResumed)
def resumed(state: State, event: Event[WorkerResumed]) -> None:
    _pause(state, event.data.worker, False)


@folds(IntakeOpened)
def intake_opened(state: State, event: Event[IntakeOpened]) -> None:
    """An intake of somebody's own is read from its beginning."""
    if event.data.intake not in state.intakes:
        state.journal.put(state.intakes, event.data.intake, "0-0")


def _pause(state: State, name: str, value: bool) -> None:
    worker = state.workers.get(name)
    if worker is not None:
        state.journal.touch(worker)
        worker.paused = value
