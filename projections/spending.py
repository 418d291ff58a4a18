"""What attempts use: charged as it is reported, corrected when more is known of it.

What an ended attempt was charged is remembered with its task, so that a late actual takes the
place of an estimate, and an operator can correct it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from events.envelope import Event
from events.task import Charge, add_figures
from events.usage import ProgressUpdated, UsageCorrected, UsageRecorded
from projections import buckets, charges, usage
from projections.records import RUNNING, ChargedAttempt, PastAttempt, TaskRecord
from projections.state import State, folds

TORN_MAX = 10_000  # results of tasks that the log lost: so many are remembered


@folds(UsageRecorded)
def recorded(state: State, event: Event[UsageRecorded]) -> None:
    """``usage.recorded``; the result of a task that the log lost is remembered: it counts once."""
    payload = event.data
    if not payload.unknown_task:
        spent(state, event, payload.attempt, payload.charged)
        return
    if len(state.torn) >= TORN_MAX:
        state.journal.drop(state.torn, min(state.torn, key=lambda key: (state.torn[key], key)))
    key = torn_key(payload.task, payload.attempt, payload.session)
    state.journal.put(state.torn, key, state.meta.events)
    spent(state, event, 0, payload.charged)


def torn_key(task: str, attempt: int, session: str) -> str:
    """Names an attempt whose task the log does not know."""
    return f"{attempt} {session} {task}"


@folds(UsageCorrected)
def corrected(state: State, event: Event[UsageCorrected]) -> None:
    """``usage.corrected``: an actual in place of an estimate, or an operator's correction."""
    payload = event.data
    if not payload.action:
        spent(state, event, payload.attempt, payload.charged)
        return
    buckets.charge(state, event.at, payload.charged)
    charge = state.disputes.get(payload.report) if payload.report else None
    if payload.task and not payload.report:
        charge = charges.of_attempt(state, payload.task, payload.attempt)
    replaced = charge.estimated_tokens if charge is not None else 0
    usage.charge(state, event.at, payload.charged, replaced=replaced)
    if charge is None:
        return
    charge = charges.plus(charge, event.at, payload.charged)
    charges.note(state, payload.report or charges.key_of(payload.task, payload.attempt), charge)
    if not payload.report:
        _keep_past(state, payload.task, payload.attempt, charge)
        _add_to_record(state, payload.task, payload.charged)


def spent(
    state: State,
    event: Event[UsageRecorded | UsageCorrected | ProgressUpdated],
    attempt: int,
    charged: Charge,
) -> None:
    """Usage of a running attempt, late usage of an ended one, or foreign work (``attempt`` 0):
    charge it. A running attempt's eats its hold."""
    name = event.data.task
    task = state.tasks.get(name) if name else None
    replaced = 0
    if task is not None and task.status in RUNNING and task.attempt == attempt:
        before = task.hold_left
        eat(state, task, event.at, charged)
        after = task.hold_left
        buckets.hold(state, task.run_scopes, after[0] - before[0], after[1] - before[1], 0)
        state.see_to_hold(task)
    elif attempt:
        replaced = estimated(state, name, attempt)
        heard(state, event.at, name, attempt, charged)
    elif charged.disputed_tokens or charged.disputed_nanos:
        charges.note(state, event.log_id, _foreign(event.at, name, charged))
    buckets.charge(state, event.at, charged)
    usage.charge(state, event.at, charged, replaced=replaced)


def _foreign(at: int, task: str, charged: Charge) -> ChargedAttempt:
    """A report of work that asb did not dispatch, of which something is disputed."""
    report = ChargedAttempt(
        at, charged.agent, charged.model, charged.worker, charged.project, charged.kind, task=task
    )
    return charges.plus(report, at, charged)


def eat(state: State, task: TaskRecord, at: int, charged: Charge) -> None:
    """A charge of the running attempt, among the figures of its task. The hold is its caller's."""
    state.journal.touch(task)
    if task.used is None:
        task.used = charged
    else:
        total = replace(charged)
        add_figures(total, task.used)
        task.used = total
    task.marks = charges.marked(task.marks, at, charged)
    task.used_tokens += charged.tokens
    task.used_nanos += charged.nanos


# -- attempts that have ended ----------------------------------------------------------------------


def estimated(state: State, task: str, attempt: int) -> int:
    """What was estimated for a past attempt of which a meter speaks now."""
    record = (state.record_of(task)) if task else None
    past = record.past if record is not None else ()
    return sum(x.charge.estimated_tokens for x in past if x.attempt == attempt)


def heard(
    state: State, at: int, task: str, attempt: int, charged: Charge | None, *, result: bool = False
) -> None:
    """A meter spoke after the attempt had ended: nothing of it is estimated any more. With its
    ``result`` the attempt's worker has spoken, and a repeat of that changes nothing; usage may
    still come where it told none."""

    def changed(past: PastAttempt) -> PastAttempt:
        if charged is None:
            return replace(past, reported=True)
        charge = charges.plus(past.charge, at, charged)
        charges.note(state, charges.key_of(task, attempt), charge)
        said = {"reported": True, "heard": True} if result else {}
        return replace(past, charge=charge, estimated_nanos=0, **said)

    if _change_past(state, task, attempt, changed) and charged is not None:
        _add_to_record(state, task, charged)


def _change_past(
    state: State, task: str, attempt: int, change: Callable[[PastAttempt], PastAttempt]
) -> bool:
    """Change what is remembered of an attempt that has ended; False where nothing is."""
    record = state.record_of(task)
    if record is None or all(past.attempt != attempt for past in record.past):
        return False
    state.journal.touch(record)
    record.past = tuple(change(x) if x.attempt == attempt else x for x in record.past)
    return True


def _keep_past(state: State, task: str, attempt: int, charge: ChargedAttempt) -> None:
    """An operator's word about an attempt stands: nothing of it comes late any more."""
    record = state.record_of(task)
    if record is None:
        return
    state.journal.touch(record)
    if all(past.attempt != attempt for past in record.past):
        record.past = (*record.past, PastAttempt(attempt, record.session, charge))
    kept = {"charge": charge, "estimated_nanos": 0, "heard": True}
    record.past = tuple(
        replace(past, **kept) if past.attempt == attempt else past for past in record.past
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
