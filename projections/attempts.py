"""Attempts: a worker runs a task; what is held for it, and raised, while it runs.

How they end stands in ``ends``, what they use in ``spending``.
"""

from __future__ import annotations

from events.envelope import Event
from events.task import TaskCancelRequested, TaskDispatched, TaskStarted
from events.usage import HoldExtended, HoldRefused
from projections import buckets, tallies
from projections.records import DISPATCHED, RUNNING, STARTED
from projections.state import State, folds


@folds(TaskDispatched)
def dispatched(state: State, event: Event[TaskDispatched]) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    worker = state.workers.get(payload.worker)
    if task is None or worker is None:
        return
    journal = state.journal
    journal.touch(task)
    state.move(task, DISPATCHED)
    if not task.dispatched_at:
        tallies.timed(state, "dispatch", task.priority_name, event.at - task.submitted_at)
    task.attempt = payload.attempt
    task.worker, task.session = payload.worker, payload.session
    task.run_agent, task.run_model = payload.agent, payload.model
    task.hold_tokens, task.hold_nanos = task.first_hold = payload.hold_tokens, payload.hold_nanos
    task.hold_refused = task.hold_word = ""
    task.used_tokens = task.used_nanos = 0
    task.used = None
    task.marks = ()
    task.dispatched_at, task.started_at = event.at, 0
    task.due = payload.deadline
    task.dispatch_id = event.log_id
    journal.touch(worker)
    journal.put(worker.running, task.id, payload.attempt)
    worker.dispatched += 1
    worker.last_kind = task.kind
    buckets.hold(state, task.run_scopes, payload.hold_tokens, payload.hold_nanos, 1)
    state.index(task)


@folds(TaskStarted)
def started(state: State, event: Event[TaskStarted]) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.status != DISPATCHED:
        return
    if task.session == payload.session and task.attempt == payload.attempt:
        state.journal.touch(task)
        state.move(task, STARTED)
        if task.attempt == 1:
            tallies.timed(state, "start", task.priority_name, event.at - task.submitted_at)
        task.started_at = event.at


@folds(TaskCancelRequested)
def cancel_requested(state: State, event: Event[TaskCancelRequested]) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None:
        state.journal.touch(task)
        task.cancel_id = event.log_id


@folds(HoldExtended)
def hold_extended(state: State, event: Event[HoldExtended]) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.status not in RUNNING or task.attempt != payload.attempt:
        return
    before = task.hold_left
    state.journal.touch(task)
    task.hold_tokens += payload.tokens
    task.hold_nanos += payload.nanos
    if task.hold_refused:  # its worker warns or waits, and has to know
        task.hold_refused, task.hold_word = "", event.log_id
    after = task.hold_left
    buckets.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)


@folds(HoldRefused)
def hold_refused(state: State, event: Event[HoldRefused]) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None and task.attempt == event.data.attempt:
        state.journal.touch(task)
        task.hold_refused, task.hold_word = event.data.action or "warn", event.log_id
        state.see_to_hold(task)
