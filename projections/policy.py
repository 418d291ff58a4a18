"""The policy in force: the last ``policy.changed``."""

from __future__ import annotations

from events.envelope import Event
from events.policy import PolicyChanged
from projections import alerts
from projections.state import State, folds


@folds(PolicyChanged)
def changed(state: State, event: Event[PolicyChanged]) -> None:
    """Another policy; what could never fit under the old one is tried again."""
    alerts.before_policy(state)
    state.set_policy(event.data)
    state.meta.policy_after = state.meta.submitted
    alerts.after_policy(state)
