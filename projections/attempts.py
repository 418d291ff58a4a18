"""Attempts: a worker runs a task; what it uses, and how it ends.

Whatever ends an attempt carries its last usage in the same event, frees the worker's slot and
releases what was still held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from events.envelope import Event
from events.task import AttemptEnd, Booking
from projections import estimates, throttle, usage
from projections.tasks import (
    BACKOFF,
    CANCELLED,
    COMPLETED,
    DISPATCHED,
    FAILED,
    QUEUED,
    RUNNING,
    STARTED,
    PastAttempt,
    Task,
    back,
    close,
)

if TYPE_CHECKING:
    from projections.state import State


def dispatched(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    worker = state.workers.get(d.worker)
    if task is None or worker is None:
        return
    undo = state.undo
    undo.touch(task)
    task.status = DISPATCHED
    task.attempt = d.attempt
    task.worker, task.session = d.worker, d.session
    task.run_agent, task.run_model = d.agent, d.model
    task.hold_tokens, task.hold_nanos = task.first_hold = d.hold_tokens, d.hold_nanos
    task.hold_refused = task.hold_word = ""
    task.used_tokens = task.used_nanos = 0
    task.used = None
    task.dispatched_at, task.started_at = event.at, 0
    task.due = d.deadline
    task.dispatch_id = event.log_id
    undo.touch(worker)
    undo.put(worker.running, task.id, d.attempt)
    worker.dispatched += 1
    worker.last_kind = task.kind
    throttle.hold(state, task.run_scopes, d.hold_tokens, d.hold_nanos, 1)
    state.index(task)


def started(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None or task.status != DISPATCHED:
        return
    if task.session == d.session and task.attempt == d.attempt:
        state.undo.touch(task)
        task.status = STARTED
        task.started_at = event.at


def cancel_requested(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None:
        state.undo.touch(task)
        task.cancel_id = event.log_id


def spent(state: State, event: Event) -> None:
    """``usage.recorded`` and ``usage.corrected``: book it, and let it eat the attempt's hold."""
    d = event.data
    task = state.tasks.get(d.task) if d.task else None
    if task is not None and task.status in RUNNING and task.attempt == d.attempt:
        before = task.hold_left
        state.undo.touch(task)
        task.used = _summed(task.used, d.booked)
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
        after = task.hold_left
        throttle.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)
        if task.overruns:
            state.overruns.add(state, task)
        replaced = 0
    else:
        replaced = _estimated(state, d)
        if d.attempt:
            _change_past(state, d, lambda past: _measured(past, d.booked))
    throttle.book(state, event.at, d.booked)
    usage.book(state, event.at, d.booked, replaced=replaced)


def _summed(so_far: Booking | None, more: Booking) -> Booking:
    if so_far is None:
        return more
    parts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    added = {p: getattr(so_far, p) + getattr(more, p) for p in parts}
    return msgspec.structs.replace(
        more, **added, tokens=so_far.tokens + more.tokens, nanos=so_far.nanos + more.nanos
    )


def _measured(past: PastAttempt, booked: Booking) -> PastAttempt:
    """A meter spoke after the attempt had ended: nothing of it is estimated any more."""
    return msgspec.structs.replace(
        past,
        parts=_summed(past.parts, booked),
        tokens=past.tokens + booked.tokens,
        nanos=past.nanos + booked.nanos,
        estimated_tokens=0,
        estimated_nanos=0,
    )


def hold_extended(state: State, event: Event) -> None:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None or task.status not in RUNNING or task.attempt != d.attempt:
        return
    before = task.hold_left
    state.undo.touch(task)
    task.hold_tokens += d.tokens
    task.hold_nanos += d.nanos
    if task.hold_refused:  # its worker was told to warn or wait, and has to know
        task.hold_refused, task.hold_word = "", event.log_id
    after = task.hold_left
    throttle.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)


def hold_refused(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None and task.attempt == event.data.attempt:
        state.undo.touch(task)
        task.hold_refused, task.hold_word = event.data.action or "warn", event.log_id
        state.remember_refused(task)


# -- ends of attempts ------------------------------------------------------------------------


def _end_attempt(state: State, event: Event, completed: int, failed: int) -> Task | None:
    """Book what the event carries; free worker and hold if it ends the present attempt.

    None when the event is about an older attempt: its usage counts, nothing else.
    """
    d: AttemptEnd = event.data
    task = state.tasks.get(d.task)
    current = (
        task is not None
        and not d.stale
        and task.attempt == d.attempt
        and (task.session == d.session or not d.session)
    )
    if d.booked is not None:
        throttle.book(state, event.at, d.booked)
        if current:
            usage.book(state, event.at, d.booked, completed, failed)
        else:
            usage.book(state, event.at, d.booked, replaced=_estimated(state, d))
    if not current or task is None:
        _forget_past(state, d)
        return None
    left = task.hold_left
    state.undo.touch(task)
    if d.booked is not None:
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
    if task.status in RUNNING:
        task.spent_tokens += task.used_tokens
        task.spent_nanos += task.used_nanos
        if d.booked is not None and d.booked.tasks and not d.booked.estimated:
            estimates.settle(state, task, d.booked)
        if not event.origin or (d.booked is not None and d.booked.estimated):
            task.past = (*task.past, _past(task, event))
        throttle.hold(state, task.run_scopes, -left[0], -left[1], -1)
        worker = state.workers.get(task.worker)
        if worker is not None and worker.session == task.session:
            state.undo.touch(worker)
            state.undo.drop(worker.running, task.id)
            worker.completed += completed
            worker.failed += failed
    return task


def _past(task: Task, event: Event) -> PastAttempt:
    booked: Booking | None = event.data.booked
    guessed = booked is not None and booked.estimated
    return PastAttempt(
        task.attempt,
        task.session,
        event.at,
        task.worker,
        task.run_agent,
        task.run_model,
        task.used_tokens,
        task.used_nanos,
        _summed(task.used, booked) if booked is not None else task.used,
        booked.tokens if booked is not None and guessed else 0,
        booked.nanos if booked is not None and guessed else 0,
        bool(event.origin),
    )


def _forget_past(state: State, d: AttemptEnd) -> None:
    """A late result has spoken for its attempt: a repeat of it finds nothing, but its usage may
    still come where it told none."""
    _change_past(
        state,
        d,
        lambda past: msgspec.structs.replace(past, reported=True) if not d.booked else None,
    )


def _estimated(state: State, d: Any) -> int:
    """What was estimated for a past attempt of which a meter speaks now."""
    record = (state.tasks.get(d.task) or state.outcomes.get(d.task)) if d.task else None
    found = [p for p in record.past if p.attempt == d.attempt] if record is not None else []
    return sum(past.estimated_tokens for past in found)


def _change_past(state: State, d: Any, change: Callable[[PastAttempt], PastAttempt | None]) -> None:
    record = state.tasks.get(d.task) or state.outcomes.get(d.task)
    if record is not None and record.past:
        state.undo.touch(record)
        changed = ((change(p) if p.attempt == d.attempt else p) for p in record.past)
        record.past = tuple(p for p in changed if p is not None)


def completed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 1, 0)
    if task is not None:
        state.meta.completed += 1
        close(state, task, COMPLETED, event.at)


def failed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 1)
    if task is None:
        return
    task.last_error = event.data.error[:500]
    if event.data.retry_at:
        back(state, task, BACKOFF, event.data.retry_at)
    else:
        state.meta.failed += 1
        close(state, task, FAILED, event.at)


def cancelled(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 0)
    if task is not None:
        state.meta.cancelled += 1
        close(state, task, CANCELLED, event.at)


def requeued(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 0)
    if task is not None:
        back(state, task, QUEUED, 0)
