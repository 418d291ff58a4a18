"""The runaway guard: a running attempt that passes its hold gets more, or is told to stop. PURE.

Each extension is admitted like a dispatch, so what an attempt can go beyond its budget by is what
it uses between two of its reports, and after a refusal until it obeys:

==========  ========================================================================================
``cancel``  until its worker has ended it: an entry of the inbox and the worker's kill grace
``pause``   until its worker has stopped it: an entry of the inbox; and the one step it had begun (a
            request that is under way at a vendor is paid for, a Python handler stops where it asks,
            an agent in tmux before its next tool)
``warn``    without a bound but the attempt's timeout: the policy asks for no more than a word
==========  ========================================================================================

A refusal is not for ever: the extension is tried again in every turn, and once a second while the
engine is idle; a window that rolled over or a raised limit lets a paused attempt go on.
"""

from __future__ import annotations

from events.task import TaskCancelRequested
from events.usage import HoldExtended, HoldRefused
from projections import budgets
from projections.records import TaskRecord
from projections.state import State
from services.decider import Decisions, decided

BY = "dispatcher"
TRIED_MAX = 100  # refused attempts a turn tries again; of more, others every second
SECOND = 1_000_000


def decide(state: State, now: int) -> Decisions:
    """Raise holds step by step, each step under the check of admission."""
    for task in _to_try_again(state, now):
        raised = _raised(state, task, now)
        if not isinstance(raised, budgets.Refusal):
            yield decided(raised, BY)
    while (task := state.indexes.next_overrun()) is not None:
        raised = _raised(state, task, now)
        if isinstance(raised, budgets.Refusal):
            yield from _refused(state, task, raised)
        else:
            yield decided(raised, BY)


def _to_try_again(state: State, now: int) -> list[TaskRecord]:
    """What was refused before and still wants more; the oldest refusal first."""
    waiting = state.indexes.wanting_more()
    if len(waiting) <= TRIED_MAX:
        return waiting
    first = now // SECOND * TRIED_MAX % len(waiting)
    return (waiting[first:] + waiting[:first])[:TRIED_MAX]


def _raised(state: State, task: TaskRecord, now: int) -> HoldExtended | budgets.Refusal:
    """A hold one step above what is used, or why the budgets do not allow that."""
    tokens, nanos = _step(state, task)
    over = max(0, task.used_tokens - task.hold_tokens), max(0, task.used_nanos - task.hold_nanos)
    refusal = budgets.refusal(state, task.run_scopes, task.priority, (tokens, nanos, 0), now)
    if refusal is not None:
        return refusal
    return HoldExtended(task.id, task.attempt, over[0] + tokens, over[1] + nanos)


def _step(state: State, task: TaskRecord) -> tuple[int, int]:
    """One step beyond what is used already, which is charged and needs no hold."""
    percent = state.policy.guard.step_percent
    tokens, nanos = task.first_hold
    return max(1, tokens * percent // 100), max(1, nanos * percent // 100)


def _refused(state: State, task: TaskRecord, refusal: budgets.Refusal) -> Decisions:
    action = state.policy.guard.action
    reason = (
        f"it used {task.used_tokens:,} tokens of {task.hold_tokens:,} held, and "
        f"{refusal.unit}/{refusal.window} of {refusal.scope} allows no more"
    )
    said = HoldRefused(task.id, task.attempt, task.session, task.worker, action, reason)
    yield decided(said, BY)
    if action == "cancel" and not task.cancelling:
        yield decided(TaskCancelRequested(task.id, reason), BY)


EMITS = frozenset({TaskCancelRequested, HoldExtended, HoldRefused})
