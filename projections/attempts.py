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
from projections import charges, estimates, routing, throttle, usage
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

TORN_MAX = 10_000  # results of tasks that the log lost: so many are remembered


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
    task.marks = ()
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
    """Usage of a running attempt, late usage of an ended one, or foreign work: charge it. A running
    attempt's eats its hold."""
    d = event.data
    task = state.tasks.get(d.task) if d.task else None
    replaced = 0
    if task is not None and task.status in RUNNING and task.attempt == d.attempt:
        before = task.hold_left
        state.undo.touch(task)
        task.used = _summed(task.used, d.booked)
        task.marks = charges.marked(task.marks, event.at, d.booked)
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
        after = task.hold_left
        throttle.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)
        if task.overruns:
            state.overruns.add(state, task)
    elif d.attempt:
        replaced = _estimated(state, d)
        _measured(state, event)
    elif d.booked.disputed_tokens or d.booked.disputed_nanos:
        charges.note(state, event.log_id, _foreign(event))
    throttle.book(state, event.at, d.booked)
    usage.book(state, event.at, d.booked, replaced=replaced)


def recorded(state: State, event: Event) -> None:
    """``usage.recorded``; the result of a task that the log lost is remembered: it counts once."""
    d = event.data
    if d.unknown_task:
        if len(state.torn) >= TORN_MAX:
            state.undo.drop(state.torn, min(state.torn, key=lambda key: (state.torn[key], key)))
        state.undo.put(state.torn, torn_key(d.task, d.attempt, d.session), state.meta.events)
        d = msgspec.structs.replace(d, attempt=0)
        event = msgspec.structs.replace(event, data=d)
    spent(state, event)


def torn_key(task: str, attempt: int, session: str) -> str:
    """Names an attempt whose task the log does not know."""
    return f"{attempt} {session} {task}"


def corrected(state: State, event: Event) -> None:
    """``usage.corrected``: an actual in place of an estimate, or an operator's correction."""
    d = event.data
    if not d.action:
        spent(state, event)
        return
    throttle.book(state, event.at, d.booked)
    charge = state.disputes.get(d.report) if d.report else None
    if d.task and not d.report:
        charge = charges.of_attempt(state, d.task, d.attempt)
    usage.book(
        state, event.at, d.booked, replaced=charge.estimated_tokens if charge is not None else 0
    )
    if charge is None:
        return
    charge = charge.plus(event.at, d.booked)
    charges.note(state, d.report or charges.key_of(d.task, d.attempt), charge)
    if not d.report:
        _keep_past(state, d.task, d.attempt, charge)
        _add_to_record(state, d.task, d.booked)


def _keep_past(state: State, task: str, attempt: int, charge: charges.Charge) -> None:
    """An operator's word about an attempt stands: nothing of it comes late any more."""
    record = state.tasks.get(task) or state.outcomes.get(task)
    if record is None:
        return
    state.undo.touch(record)
    if all(past.attempt != attempt for past in record.past):
        record.past = (*record.past, PastAttempt(attempt, record.session, charge))
    kept = {"charge": charge, "estimated_nanos": 0, "told": True}
    record.past = tuple(
        msgspec.structs.replace(past, **kept) if past.attempt == attempt else past
        for past in record.past
    )


def _add_to_record(state: State, task: str, booked: Booking) -> None:
    """What an ended attempt was charged or given back later, in the sums of its task."""
    if (open_task := state.tasks.get(task)) is not None:
        state.undo.touch(open_task)
        open_task.spent_tokens += booked.tokens
        open_task.spent_nanos += booked.nanos
    elif (outcome := state.outcomes.get(task)) is not None:
        state.undo.touch(outcome)
        outcome.tokens += booked.tokens
        outcome.nanos += booked.nanos


def _foreign(event: Event) -> charges.Charge:
    """A report of work that asb did not dispatch, of which something is disputed."""
    b: Booking = event.data.booked
    made = charges.Charge(
        event.at, b.agent, b.model, b.worker, b.project, b.kind, task=event.data.task
    )
    return made.plus(event.at, b)


def _summed(so_far: Booking | None, more: Booking) -> Booking:
    if so_far is None:
        return more
    return msgspec.structs.replace(
        more, **{name: getattr(so_far, name) + getattr(more, name) for name in _SUMMED}
    )


_SUMMED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "tokens",
    "nanos",
    "disputed_tokens",
    "disputed_nanos",
)


def _measured(state: State, event: Event) -> None:
    """A meter spoke after the attempt had ended: nothing of it is estimated any more."""
    d = event.data

    def measured(past: PastAttempt) -> PastAttempt:
        charge = past.charge.plus(event.at, d.booked)
        charges.note(state, charges.key_of(d.task, d.attempt), charge)
        return msgspec.structs.replace(past, charge=charge, estimated_nanos=0)

    if _change_past(state, d, measured):
        _add_to_record(state, d.task, d.booked)


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
        _told_late(state, event)
        return None
    left = task.hold_left
    state.undo.touch(task)
    if d.booked is not None:
        task.used = _summed(task.used, d.booked)
        task.marks = charges.marked(task.marks, event.at, d.booked)
        task.used_tokens += d.booked.tokens
        task.used_nanos += d.booked.nanos
    if task.status in RUNNING:
        task.spent_tokens += task.used_tokens
        task.spent_nanos += task.used_nanos
        if d.booked is not None and d.booked.tasks and not d.booked.estimated:
            estimates.settle(state, task, d.booked)
        past = _past(task, event)
        task.past = (*task.past, past)
        charges.note(state, charges.key_of(task.id, task.attempt), past.charge)
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
    used = task.used
    charge = charges.Charge(
        event.at,
        task.run_agent,
        used.model if used is not None else task.run_model,
        task.worker,
        task.project,
        task.kind,
        task.marks,
        charges.parts_of(used),
        booked.tokens if booked is not None and guessed else 0,
        used.disputed_tokens if used is not None else 0,
        used.disputed_nanos if used is not None else 0,
        task.id,
        task.attempt,
    )
    return PastAttempt(
        task.attempt,
        task.session,
        charge,
        booked.nanos if booked is not None and guessed else 0,
        reported=bool(event.origin),
        told=bool(event.origin) and not guessed,
    )


def _told_late(state: State, event: Event) -> None:
    """A late result has spoken for its attempt: a repeat of it finds nothing, but its usage may
    still come where it told none."""
    d = event.data

    def told(past: PastAttempt) -> PastAttempt:
        if not d.booked:
            return msgspec.structs.replace(past, reported=True)
        charge = past.charge.plus(event.at, d.booked)
        charges.note(state, charges.key_of(d.task, d.attempt), charge)
        return msgspec.structs.replace(
            past, charge=charge, estimated_nanos=0, reported=True, told=True
        )

    if _change_past(state, d, told) and d.booked is not None:
        _add_to_record(state, d.task, d.booked)


def _estimated(state: State, d: Any) -> int:
    """What was estimated for a past attempt of which a meter speaks now."""
    record = (state.tasks.get(d.task) or state.outcomes.get(d.task)) if d.task else None
    found = [p for p in record.past if p.attempt == d.attempt] if record is not None else []
    return sum(past.charge.estimated_tokens for past in found)


def _change_past(state: State, d: Any, change: Callable[[PastAttempt], PastAttempt]) -> bool:
    """Change what is remembered of the attempt that ``d`` names; False where nothing is."""
    record = state.tasks.get(d.task) or state.outcomes.get(d.task)
    if record is None or all(past.attempt != d.attempt for past in record.past):
        return False
    state.undo.touch(record)
    record.past = tuple(change(p) if p.attempt == d.attempt else p for p in record.past)
    return True


def completed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 1, 0)
    if task is not None:
        state.meta.completed += 1
        routing.ended(state, task, event.at, completed=True)
        close(state, task, COMPLETED, event.at)


def failed(state: State, event: Event) -> None:
    task = _end_attempt(state, event, 0, 1)
    if task is None:
        return
    task.last_error = event.data.error[:500]
    if task.status in RUNNING:
        for_good = not event.data.retry_at
        routing.ended(state, task, event.at, completed=False, for_good=for_good)
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
