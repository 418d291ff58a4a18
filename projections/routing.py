"""What the delegator was taught, and how each route fares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event

if TYPE_CHECKING:
    from projections.state import State
    from projections.tasks import TaskRecord

ROUTED_MAX = 2_000  # kinds × models; further models are not counted


class Overlay(msgspec.Struct, frozen=True, gc=False):
    """Weights on top of the shipped ones. ``place``: log id of the learning they come from."""

    weights: dict[str, str] = {}
    shipped: str = ""
    place: str = ""
    rows: int = 0


class Taught(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where an example stands: its words stay on the log, at ``place``, the ``number``-th of the
    event; or they are those of ``task``."""

    kind: str
    place: str
    number: int = 0
    task: str = ""


class Routed(msgspec.Struct, array_like=True, gc=False):
    """How attempts of one kind fared on one model. ``micros``: from dispatch to end."""

    attempts: int = 0
    completed: int = 0
    tokens: int = 0
    nanos: int = 0
    micros: int = 0
    lost: int = 0  # tasks that failed on it for good
    escalated: int = 0  # tasks that were tried on a more capable model afterwards
    rescued: int = 0  # tasks that it completed after a cheaper model had failed


def learnt(state: State, event: Event) -> None:
    """Another overlay is in force; examples come and go."""
    d, journal = event.data, state.journal
    journal.touch(state.meta)
    state.meta.overlay = Overlay(d.overlay, d.shipped, event.log_id, d.rows)
    for example in d.forgotten:
        journal.drop(state.taught, example)
    for number, example in enumerate(d.examples):
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


def escalated(state: State, event: Event) -> None:
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
    task.max_attempts = task.attempt + 1
    state.index(task)


def to_escalate(task: TaskRecord) -> bool:
    """Whether it waits for another try though its tries are used up: for a more capable model."""
    return bool(task.attempt) and task.attempt >= task.max_attempts and not task.escalated
