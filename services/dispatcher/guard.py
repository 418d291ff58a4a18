"""The runaway guard: a running attempt that passes its hold gets more, or is told to stop. PURE.

The bound on what a task can overrun its budget by: what it uses between two of its reports, plus
what it uses until it obeys. Each extension was admitted like a dispatch.
"""

from __future__ import annotations

from events.task import TaskCancelRequested
from events.usage import HoldExtended, HoldRefused
from projections import throttle
from projections.state import State
from projections.tasks import Task
from services.turn import Decisions, decided

BY = "dispatcher"


def decide(state: State, now: int) -> Decisions:
    """Raise holds step by step, each step under the check of admission."""
    while (task := state.next_overrun()) is not None:
        tokens, nanos = _step(state, task)
        over = (
            max(0, task.used_tokens - task.hold_tokens),
            max(0, task.used_nanos - task.hold_nanos),
        )
        refusal = throttle.refusal(state, task.run_scopes, task.priority, (tokens, nanos, 0), now)
        if refusal is None:
            raised = HoldExtended(task.id, task.attempt, over[0] + tokens, over[1] + nanos)
            yield decided(raised, BY)
        else:
            yield from _refused(state, task, refusal)


def _step(state: State, task: Task) -> tuple[int, int]:
    """One step beyond what is used already, which is booked and needs no hold."""
    percent = state.policy.guard.step_percent
    tokens, nanos = task.first_hold
    return max(1, tokens * percent // 100), max(1, nanos * percent // 100)


def _refused(state: State, task: Task, refusal: throttle.Refusal) -> Decisions:
    action = state.policy.guard.action
    reason = (
        f"it used {task.used_tokens:,} tokens of {task.hold_tokens:,} held, and "
        f"{refusal.unit}/{refusal.window} of {refusal.scope} allows no more"
    )
    said = HoldRefused(task.id, task.attempt, task.session, task.worker, action, reason)
    yield decided(said, BY)
    if action == "cancel" and not task.cancelling:
        yield decided(TaskCancelRequested(task.id, reason), BY)
