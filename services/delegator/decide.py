"""Delegation: every task gets the cheapest adequate agent and model, and a reason. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from events.envelope import Event
from events.routing import TaskEscalated
from events.task import TaskDelegated
from projections.prices import price_of
from projections.records import TaskRecord
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided
from services.delegator.classify import Delegation, Delegator

BY = "delegator"


def decider(delegator: Delegator) -> Decider:
    """The delegator as a decider, with the routes and rules of ``delegator``.

    What the bus taught it stands on the log, so every host routes alike.
    """
    taught = TaughtDelegator(delegator)

    def decide(state: State, _now: int, inputs: Inputs) -> Decisions:
        yield from _escalations(state, inputs.defaults.escalate_to)
        if state.meta.overlay.place != inputs.overlay[0]:
            return  # what it was taught is still being fetched from the log
        while (task := state.indexes.next_undelegated()) is not None:
            text = inputs.texts.get(task.id)
            if text is None:
                return  # its prompt is still being fetched from the log
            delegation = taught.by(*inputs.overlay).delegate(
                text, kind=task.kind or None, dearness=lambda model: _dearness(state, model)
            )
            yield decided(_with_given(task, delegation), BY)

    return Decider(BY, decide, frozenset({TaskDelegated, TaskEscalated}), reads_prompts=True)


class TaughtDelegator:
    """A delegator with the overlay that was asked for last: making one takes milliseconds."""

    def __init__(self, plain: Delegator) -> None:
        self._plain = self._present = plain
        self._place = ""

    def by(self, place: str, weights: Mapping[str, str]) -> Delegator:
        """The delegator as the learning at ``place`` on the log taught it."""
        if place != self._place:
            self._present = self._plain.with_overlay(weights) if weights else self._plain
            self._place = place
        return self._present


def _dearness(state: State, model: str) -> int | None:
    price = price_of(state, model)
    return price.dearest if price is not None else None


def _escalations(state: State, model: str) -> Iterator[Event]:
    """Tasks that used up their tries on a cheap model get one on the capable one."""
    while model and (task := state.indexes.next_escalation()) is not None:
        reason = f"{task.tries} of {task.max_attempts} attempts failed, the last on"
        reason += f" {task.run_model}; escalate is on, so {model} tries once"
        yield decided(TaskEscalated(task.id, task.attempt, task.agent, model, reason), BY)


def _with_given(task: TaskRecord, delegation: Delegation) -> TaskDelegated:
    """The delegation, where what the user gave takes the place of what the text says."""
    agent, model = task.agent or delegation.agent, task.model or delegation.model
    reason = delegation.reason
    if task.given.strip("wk"):
        asked = "/".join(x for x in (task.agent, task.model) if x)
        reason = f"{asked} was asked for; {reason}"
    return TaskDelegated(
        task.id,
        delegation.kind,
        agent,
        model,
        delegation.complexity,
        task.given_estimate or delegation.estimated_tokens,
        reason,
        delegation.candidates,
        delegation.margin,
        delegation.close,
    )
