"""Ends of attempts, and of tasks with them.

Whatever ends an attempt carries its last usage in the same event, frees the worker's slot and
releases what was still held.
"""

from __future__ import annotations

from events.envelope import Event
from events.task import (
    AttemptEnd,
    Charge,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRequeued,
)
from projections import accounts, buckets, charges, estimates, routing, spending, tallies, usage
from projections.records import (
    BACKOFF,
    CANCELLED,
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    ChargedAttempt,
    PastAttempt,
    TaskRecord,
)
from projections.state import State, folds
from projections.tasks import back, close


@folds(TaskCompleted)
def completed(state: State, event: Event[TaskCompleted]) -> None:
    task = _end_attempt(state, event, 1, 0, closes=True)
    if task is not None:
        state.meta.completed += 1
        if event.data.reused:
            task.digest = b""  # its result stands with another: that one is what others reuse
        routing.ended(state, task, event.at, completed=True)
        accounts.worked(state, task.worker)
        close(state, task, COMPLETED, event.at)


@folds(TaskFailed)
def failed(state: State, event: Event[TaskFailed]) -> None:
    for_good = not event.data.retry_at
    task = _end_attempt(state, event, 0, 1, closes=for_good)
    if task is None:
        return
    task.failed_id = event.log_id
    if task.status in RUNNING:
        routing.ended(state, task, event.at, completed=False, for_good=for_good)
    if for_good:
        state.meta.failed += 1
        close(state, task, FAILED, event.at)
    else:
        back(state, task, BACKOFF, event.data.retry_at)


@folds(TaskCancelled)
def cancelled(state: State, event: Event[TaskCancelled]) -> None:
    task = _end_attempt(state, event, 0, 0, closes=True)
    if task is not None:
        state.meta.cancelled += 1
        close(state, task, CANCELLED, event.at)


@folds(TaskRequeued)
def requeued(state: State, event: Event[TaskRequeued]) -> None:
    task = _end_attempt(state, event, 0, 0, closes=False)
    if task is not None:
        task.uncounted += bool(event.data.limited)
        back(state, task, QUEUED, 0)


def _end_attempt(
    state: State, event: Event[AttemptEnd], completed: int, failed: int, *, closes: bool
) -> TaskRecord | None:
    """Charge what the event carries; free worker and hold if it ends the present attempt. With
    ``closes`` the task is over with it: its outcome mostly says all there is to remember.

    None when the event is about an older attempt: its usage counts, nothing else.
    """
    payload, at = event.data, event.at
    charged, task = payload.charged, state.tasks.get(payload.task)
    current = (
        task is not None
        and not payload.stale
        and task.attempt == payload.attempt
        and (task.session == payload.session or not payload.session)
    )
    if charged is not None:
        buckets.charge(state, at, charged)
        if current:
            usage.charge(state, at, charged, completed, failed)
        else:
            replaced = spending.estimated(state, payload.task, payload.attempt)
            usage.charge(state, at, charged, replaced=replaced)
    if not current or task is None:
        spending.heard(state, at, payload.task, payload.attempt, charged, result=True)
        return None
    left = task.hold_left
    state.journal.touch(task)
    if charged is not None:
        spending.eat(state, task, at, charged)
    if task.status in RUNNING:
        _leave_worker(state, task, completed, failed)
        buckets.hold(state, task.run_scopes, -left[0], -left[1], -1)
        task.spent_tokens += task.used_tokens
        task.spent_nanos += task.used_nanos
        outcome = payload.type.removeprefix("task.")
        tallies.timed(state, "attempt", outcome, at - task.dispatched_at)
        if charged is not None and charged.tasks and not charged.estimated:
            estimates.learn(state, task, charged)
        if not (closes and event.origin and charges.is_plain(task, at, charged)):
            past = _past(task, at, charged, reported=bool(event.origin))
            task.past = (*task.past, past)
            if state.disputes or past.charge.is_disputed:
                charges.note(state, charges.key_of(task.id, task.attempt), past.charge)
    return task


def _leave_worker(state: State, task: TaskRecord, completed: int, failed: int) -> None:
    worker = state.workers.get(task.worker)
    if worker is not None and worker.session == task.session:
        state.journal.touch(worker)
        state.journal.drop(worker.running, task.id)
        worker.completed += completed
        worker.failed += failed


def _past(task: TaskRecord, at: int, charged: Charge | None, *, reported: bool) -> PastAttempt:
    guess = charged if charged is not None and charged.estimated else None
    used = task.used
    charge = ChargedAttempt(
        at,
        task.run_agent,
        used.model if used is not None else task.run_model,
        task.worker,
        task.project,
        task.kind,
        task.marks,
        charges.parts_of(used),
        guess.tokens if guess is not None else 0,
        used.disputed_tokens if used is not None else 0,
        used.disputed_nanos if used is not None else 0,
        task.id,
        task.attempt,
    )
    return PastAttempt(
        task.attempt,
        task.session,
        charge,
        guess.nanos if guess is not None else 0,
        reported=reported,
        heard=reported and guess is None,
    )
