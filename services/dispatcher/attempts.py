"""Attempts that are over without their worker's word: lost workers, timeouts, backoffs. PURE."""

from __future__ import annotations

from events.task import Charge, TaskCancelled, TaskFailed, TaskRequeued
from events.worker import WorkerLost
from projections.queues import wake_at
from projections.records import ALIVE, BACKOFF, RUNNING, STARTED, TaskRecord, Worker
from projections.state import State
from services import ledger
from services.decider import Decisions, Defaults, Inputs, decided

BY = "dispatcher"
SECOND = 1_000_000


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """Facts of time, each decided once: lost workers first, then what they held, then timers, then
    what waited for a task that just failed."""
    yield from lost_workers(state, now, inputs)
    yield from _orphans(state)
    while (task := state.indexes.queues.next_timer(now)) is not None:
        yield decided(_timed(state, task, now, inputs.defaults), BY)
    yield from _orphans(state)


def _orphans(state: State) -> Decisions:
    while (task := state.indexes.next_orphan()) is not None:
        yield decided(_orphaned(state, task), BY)


def lost_workers(state: State, now: int, inputs: Inputs) -> Decisions:
    """A worker whose heartbeat was absent at every look for half a lease: it lives for half a lease
    without being renewed. Nobody is lost before a full lease since the server was last found: an
    outage of Redis alone loses nobody, nor does a step of its clock."""
    for _, worker in sorted(state.workers.items()):
        if worker.status != ALIVE:
            continue
        if not worker.heartbeat:
            yield from _silent(state, worker, now)
            continue
        lease, absent = worker.lease_s * SECOND, inputs.absent_us.get(worker.session, 0)
        if absent and 2 * absent >= lease and inputs.found_us >= lease:
            evidence = (
                f"its heartbeat was absent at every look for {absent // SECOND} s "
                f"(lease {worker.lease_s} s)"
            )
            yield decided(WorkerLost(worker.name, worker.session, evidence), BY)


def _silent(state: State, worker: Worker, now: int) -> Decisions:
    """A worker that gives no heartbeats is lost when a task of its gave none in its time."""
    for task_id in sorted(worker.running):
        if wake_at(state.tasks[task_id]) <= now:
            evidence = f"no result of task {task_id} within its time, and it gives no heartbeats"
            yield decided(WorkerLost(worker.name, worker.session, evidence), BY)
            return


def _last_charge(state: State, task: TaskRecord) -> Charge:
    """Started and usage unknown: the rest of the hold. Never started: nothing."""
    if task.status == STARTED or task.used is not None:
        return ledger.final_charge(state, task)
    return ledger.unstarted(task)


def _orphaned(state: State, task: TaskRecord) -> TaskRequeued | TaskFailed | TaskCancelled:
    """The session that ran it is over, or what it waited for did not complete."""
    if task.status not in RUNNING:
        return TaskFailed(task.id, task.attempt, error=task.never_fits)
    charged = _last_charge(state, task)
    end = (task.id, task.attempt, task.session, False, charged)
    if task.cancelling:
        return TaskCancelled(*end, "its worker was lost while it was being cancelled")
    if task.tries >= task.max_attempts:
        return TaskFailed(*end, f"worker {task.worker} was lost in the last attempt")
    return TaskRequeued(*end, f"worker {task.worker} was lost")


def _timed(
    state: State, task: TaskRecord, now: int, defaults: Defaults
) -> TaskRequeued | TaskFailed | TaskCancelled:
    if task.status == BACKOFF:
        return TaskRequeued(task.id, task.attempt, reason="its backoff is over")
    end = (task.id, task.attempt, task.session, False, _last_charge(state, task))
    error = f"no result within {task.timeout_s} s"
    if task.cancelling:
        return TaskCancelled(*end, error)
    return TaskFailed(*end, error, ledger.retry_at(state, task, defaults, now))


EMITS = frozenset({TaskCancelled, TaskFailed, TaskRequeued, WorkerLost})
