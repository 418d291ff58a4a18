"""Delegation: every task gets the cheapest adequate agent and model, and a reason. PURE."""

from __future__ import annotations

from events.task import Candidate, TaskDelegated
from projections.state import State
from projections.tasks import Task
from services.delegator.classify import Delegation, Delegator
from services.turn import Decide, Decisions, Inputs, decided

BY = "delegator"


def decider(delegator: Delegator) -> Decide:
    """The delegator's decide function, with the rules of ``delegator``."""

    def decide(state: State, _now: int, inputs: Inputs) -> Decisions:
        while (task := state.next_undelegated()) is not None:
            text = inputs.texts.get(task.id)
            if text is None:
                return  # its prompt is still being fetched from the log
            found = delegator.delegate(text, kind=task.kind or None)
            yield decided(_with_given(task, found), BY)

    return decide


def _with_given(task: Task, found: Delegation) -> TaskDelegated:
    """The delegation, where what the user gave takes the place of what was found."""
    agent, model = task.agent or found.agent, task.model or found.model
    reason = found.reason
    if task.given.strip("wk"):
        asked = "/".join(x for x in (task.agent, task.model) if x)
        reason = f"{asked} was asked for; {reason}"
    return TaskDelegated(
        task.id,
        found.kind,
        agent,
        model,
        found.complexity,
        task.given_estimate or found.estimated_tokens,
        reason,
        tuple(Candidate(c.kind, c.agent, c.model, c.score) for c in found.candidates),
    )
