"""What the delegator was taught, and how each route fares."""

from __future__ import annotations

from events.envelope import Event
from events.routing import DelegatorLearnt, TaskEscalated
from projections.records import Overlay, Routed, TaskRecord, Taught
from projections.state import State, folds

ROUTED_MAX = 2_000  # kinds × models; further models are not counted


@folds(DelegatorLearnt)
def learnt(state: State, event: Event[DelegatorLearnt]) -> None:
    """Another overlay is in force; examples come and go."""
    payload, journal = event.data, state.journal
    journal.touch(state.meta)
    state.meta.overlay = Overlay(payload.shipped, event.log_id, payload.rows)
    for example in payload.forgotten:
        journal.drop(state.taught, example)
    for number, example in enumerate(payload.examples):
        name = f"task {example.task}" if example.task else f"{event.log_id}/{number}"
        taught = Taught(example.kind, event.log_id, number, example.task)
        journal.put(state.taught, name, taught)


def ended(
    state: State, task: TaskRecord, at: int, *, completed: bool, for_good: bool = False
) -> None:
    """An attempt ended by its worker's word, or by its time being over. Call it before the task's
    figures of the attempt are cleared."""
    routed = _routed(state, f"{task.kind}|{task.run_model}")
    if routed is None:
        return
    routed.attempts += 1
    routed.completed += completed
    routed.tokens += task.used_tokens
    routed.nanos += task.used_nanos
    routed.micros += max(0, at - task.dispatched_at)
    routed.lost += for_good
    routed.rescued += completed and task.escalated


def _routed(state: State, key: str) -> Routed | None:
    routed = state.routed.get(key)
    if routed is None:
        if len(state.routed) >= ROUTED_MAX:
            return None
        routed = Routed()
        state.journal.put(state.routed, key, routed)
    state.journal.touch(routed)
    return routed


@folds(TaskEscalated)
def escalated(state: State, event: Event[TaskEscalated]) -> None:
    """One more attempt, on another model."""
    payload = event.data
    task = state.tasks.get(payload.task)
    if task is None or task.escalated:
        return
    routed = _routed(state, f"{task.kind}|{task.run_model}")
    if routed is not None:
        routed.escalated += 1
    state.journal.touch(task)
    task.agent, task.model = payload.agent, payload.model
    task.escalated = True
    task.max_attempts = task.tries + 1
    state.index(task)
