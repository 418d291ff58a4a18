"""Attempts: a worker runs a task; what it uses, and how it ends.

Whatever ends an attempt carries its last usage in the same event, frees the worker's slot and
releases what was still held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from events.envelope import Event
from events.task import AttemptEnd, Charge
from projections import budgets, charges, estimates, routing, tallies, usage
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
    TaskRecord,
    back,
    close,
)

if TYPE_CHECKING:
    from projections.state import State

TORN_MAX = 10_000  # results of tasks that the log lost: so many are remembered


def dispatched(state: State, event: Event) -> None:
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
    budgets.hold(state, task.run_scopes, payload.hold_tokens, payload.hold_nanos, 1)
    state.index(task)


def started(state: State, event: Event) -> None:
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


def cancel_requested(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None:
        state.journal.touch(task)
        task.cancel_id = event.log_id


def spent(state: State, event: Event) -> None:
    """Usage of a running attempt, late usage of an ended one, or foreign work: charge it. A running
    attempt's eats its hold."""
    payload = event.data
    task = state.tasks.get(payload.task) if payload.task else None
    replaced = 0
    if task is not None and task.status in RUNNING and task.attempt == payload.attempt:
        before = task.hold_left
        state.journal.touch(task)
        task.used = _summed(task.used, payload.charged)
        task.marks = charges.marked(task.marks, event.at, payload.charged)
        task.used_tokens += payload.charged.tokens
        task.used_nanos += payload.charged.nanos
        after = task.hold_left
        budgets.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)
        if task.overruns:
            state.overruns.add(state, task)
    elif payload.attempt:
        replaced = _estimated(state, payload)
        _measured(state, event)
    elif payload.charged.disputed_tokens or payload.charged.disputed_nanos:
        charges.note(state, event.log_id, _foreign(event))
    budgets.book(state, event.at, payload.charged)
    usage.book(state, event.at, payload.charged, replaced=replaced)


def recorded(state: State, event: Event) -> None:
    """``usage.recorded``; the result of a task that the log lost is remembered: it counts once."""
    payload = event.data
    if payload.unknown_task:
        if len(state.torn) >= TORN_MAX:
            state.journal.drop(state.torn, min(state.torn, key=lambda key: (state.torn[key], key)))
        state.journal.put(
            state.torn, torn_key(payload.task, payload.attempt, payload.session), state.meta.events
        )
        payload = msgspec.structs.replace(payload, attempt=0)
        event = msgspec.structs.replace(event, data=payload)
    spent(state, event)


def torn_key(task: str, attempt: int, session: str) -> str:
    """Names an attempt whose task the log does not know."""
    return f"{attempt} {session} {task}"


def corrected(state: State, event: Event) -> None:
    """``usage.corrected``: an actual in place of an estimate, or an operator's correction."""
    payload = event.data
    if not payload.action:
        spent(state, event)
        return
    budgets.book(state, event.at, payload.charged)
    charge = state.disputes.get(payload.report) if payload.report else None
    if payload.task and not payload.report:
        charge = charges.of_attempt(state, payload.task, payload.attempt)
    usage.book(
        state,
        event.at,
        payload.charged,
        replaced=charge.estimated_tokens if charge is not None else 0,
    )
    if charge is None:
        return
    charge = charge.plus(event.at, payload.charged)
    charges.note(state, payload.report or charges.key_of(payload.task, payload.attempt), charge)
    if not payload.report:
        _keep_past(state, payload.task, payload.attempt, charge)
        _add_to_record(state, payload.task, payload.charged)


def _keep_past(state: State, task: str, attempt: int, charge: charges.ChargedAttempt) -> None:
    """An operator's word about an attempt stands: nothing of it comes late any more."""
    record = state.tasks.get(task) or state.outcomes.get(task)
    if record is None:
        return
    state.journal.touch(record)
    if all(past.attempt != attempt for past in record.past):
        record.past = (*record.past, PastAttempt(attempt, record.session, charge))
    kept = {"charge": charge, "estimated_nanos": 0, "heard": True}
    record.past = tuple(
        msgspec.structs.replace(past, **kept) if past.attempt == attempt else past
        for past in record.past
    )


def _add_to_record(state: State, task: str, charged: Charge) -> None:
    """What an ended attempt was charged or given back later, in the sums of its task."""
    if (open_task := state.tasks.get(task)) is not None:
        state.journal.touch(open_task)
        open_task.spent_tokens += charged.tokens
        open_task.spent_nanos += charged.nanos
    elif (outcome := state.outcomes.get(task)) is not None:
        state.journal.touch(outcome)
        outcome.tokens += charged.tokens
        outcome.nanos += charged.nanos


def _foreign(event: Event) -> charges.ChargedAttempt:
    """A report of work that asb did not dispatch, of which something is disputed."""
    b: Charge = event.data.charged
    made = charges.ChargedAttempt(
        event.at, b.agent, b.model, b.worker, b.project, b.kind, task=event.data.task
    )
    return made.plus(event.at, b)


def _summed(so_far: Charge | None, more: Charge) -> Charge:
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
    payload = event.data

    def measured(past: PastAttempt) -> PastAttempt:
        charge = past.charge.plus(event.at, payload.charged)
        charges.note(state, charges.key_of(payload.task, payload.attempt), charge)
        return msgspec.structs.replace(past, charge=charge, estimated_nanos=0)

    if _change_past(state, payload, measured):
        _add_to_record(state, payload.task, payload.charged)


def hold_extended(state: State, event: Event) -> None:
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.status not in RUNNING or task.attempt != payload.attempt:
        return
    before = task.hold_left
    state.journal.touch(task)
    task.hold_tokens += payload.tokens
    task.hold_nanos += payload.nanos
    if task.hold_refused:  # its worker was told to warn or wait, and has to know
        task.hold_refused, task.hold_word = "", event.log_id
    after = task.hold_left
    budgets.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)


def hold_refused(state: State, event: Event) -> None:
    task = state.tasks.get(event.data.task)
    if task is not None and task.attempt == event.data.attempt:
        state.journal.touch(task)
        task.hold_refused, task.hold_word = event.data.action or "warn", event.log_id
        state.remember_refused(task)


# -- ends of attempts ------------------------------------------------------------------------


def _end_attempt(state: State, event: Event, completed: int, failed: int) -> TaskRecord | None:
    """Book what the event carries; free worker and hold if it ends the present attempt.

    None when the event is about an older attempt: its usage counts, nothing else.
    """
    payload: AttemptEnd = event.data
    task = state.tasks.get(payload.task)
    current = (
        task is not None
        and not payload.stale
        and task.attempt == payload.attempt
        and (task.session == payload.session or not payload.session)
    )
    if payload.charged is not None:
        budgets.book(state, event.at, payload.charged)
        if current:
            usage.book(state, event.at, payload.charged, completed, failed)
        else:
            usage.book(state, event.at, payload.charged, replaced=_estimated(state, payload))
    if not current or task is None:
        _heard_late(state, event)
        return None
    left = task.hold_left
    state.journal.touch(task)
    if payload.charged is not None:
        task.used = _summed(task.used, payload.charged)
        task.marks = charges.marked(task.marks, event.at, payload.charged)
        task.used_tokens += payload.charged.tokens
        task.used_nanos += payload.charged.nanos
    if task.status in RUNNING:
        task.spent_tokens += task.used_tokens
        task.spent_nanos += task.used_nanos
        outcome = payload.type.removeprefix("task.")
        tallies.timed(state, "attempt", outcome, event.at - task.dispatched_at)
        if payload.charged is not None and payload.charged.tasks and not payload.charged.estimated:
            estimates.settle_estimate(state, task, payload.charged)
        past = _past(task, event)
        task.past = (*task.past, past)
        charges.note(state, charges.key_of(task.id, task.attempt), past.charge)
        budgets.hold(state, task.run_scopes, -left[0], -left[1], -1)
        worker = state.workers.get(task.worker)
        if worker is not None and worker.session == task.session:
            state.journal.touch(worker)
            state.journal.drop(worker.running, task.id)
            worker.completed += completed
            worker.failed += failed
    return task


def _past(task: TaskRecord, event: Event) -> PastAttempt:
    charged: Charge | None = event.data.charged
    guessed = charged is not None and charged.estimated
    used = task.used
    charge = charges.ChargedAttempt(
        event.at,
        task.run_agent,
        used.model if used is not None else task.run_model,
        task.worker,
        task.project,
        task.kind,
        task.marks,
        charges.parts_of(used),
        charged.tokens if charged is not None and guessed else 0,
        used.disputed_tokens if used is not None else 0,
        used.disputed_nanos if used is not None else 0,
        task.id,
        task.attempt,
    )
    return PastAttempt(
        task.attempt,
        task.session,
        charge,
        charged.nanos if charged is not None and guessed else 0,
        reported=bool(event.origin),
        heard=bool(event.origin) and not guessed,
    )


def _heard_late(state: State, event: Event) -> None:
    """A late result has spoken for its attempt: a repeat of it finds nothing, but its usage may
    still come where it told none."""
    payload = event.data

    def heard(past: PastAttempt) -> PastAttempt:
        if not payload.charged:
            return msgspec.structs.replace(past, reported=True)
        charge = past.charge.plus(event.at, payload.charged)
        charges.note(state, charges.key_of(payload.task, payload.attempt), charge)
        return msgspec.structs.replace(
            past, charge=charge, estimated_nanos=0, reported=True, heard=True
        )

    if _change_past(state, payload, heard) and payload.charged is not None:
        _add_to_record(state, payload.task, payload.charged)


def _estimated(state: State, payload: Any) -> int:
    """What was estimated for a past attempt of which a meter speaks now."""
    record = (
        (state.tasks.get(payload.task) or state.outcomes.get(payload.task))
        if payload.task
        else None
    )
    found = [p for p in record.past if p.attempt == payload.attempt] if record is not None else []
    return sum(past.charge.estimated_tokens for past in found)


def _change_past(state: State, payload: Any, change: Callable[[PastAttempt], PastAttempt]) -> bool:
    """Change what is remembered of the attempt that ``payload`` names; False where nothing is."""
    record = state.tasks.get(payload.task) or state.outcomes.get(payload.task)
    if record is None or all(past.attempt != payload.attempt for past in record.past):
        return False
    state.journal.touch(record)
    record.past = tuple(change(p) if p.attempt == payload.attempt else p for p in record.past)
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
