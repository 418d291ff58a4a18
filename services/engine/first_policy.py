"""The first event of an empty log: the policy it starts with. PURE."""

from __future__ import annotations

from events.log import NAMED
from events.policy import PolicyChanged
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "policy"


def decide(state: State, _now: int, inputs: Inputs) -> Decisions:
    """Whoever decides first on an empty log begins it; the id of that event names the log."""
    if state.meta.events == 0 and inputs.initial_policy is not None:
        first = decided(inputs.initial_policy, BY)
        first.id = NAMED + inputs.log_name
        yield first


DECIDER = Decider(BY, decide, frozenset({PolicyChanged}))
