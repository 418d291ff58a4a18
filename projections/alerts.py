"""Which levels were already said, so that each is said once per window instance."""

from __future__ import annotations

from events.envelope import Event
from events.policy import AlertRaised
from projections import tallies
from projections.budgets import LEVELS
from projections.records import Raised
from projections.state import State, folds
from projections.watches import about, before_change, key_of, rolls, standing, watches


@folds(AlertRaised)
def raised(state: State, event: Event[AlertRaised]) -> None:
    payload = event.data
    tallies.alerted(state, payload.unit, payload.level)
    key = key_of(payload.kind, payload.scope, payload.unit, payload.window)
    level = LEVELS.index(payload.level)
    known = Raised(payload.instance, level, event.log_id)
    for watch in watches(state, payload.scope) if state.rolling else ():
        if (watch.kind, watch.unit, watch.window) == (payload.kind, payload.unit, payload.window):
            before = standing(state, payload.scope, watch, state.raised.get(key, known))
            over = (before.over + (0,) * 4)[: len(watch.levels)]
            over = tuple(state.meta.at if n < level else end for n, end in enumerate(over))
            known = Raised(payload.instance, level, event.log_id, state.meta.at, over)
            break
    state.journal.put(state.raised, key, known)


def before_policy(state: State) -> None:
    """The policy is about to change: note how rolling windows stood under the present one."""
    if state.rolling:
        for scope in {about(key)[1] for key in state.raised}:
            before_change(state, scope)


def after_policy(state: State) -> None:
    """Forget what was said of rolling windows that nobody watches any more."""
    for key in list(state.raised):
        kind, scope, unit, window = about(key)
        known = ((w.kind, w.unit, w.window) for w in watches(state, scope))
        if rolls(key) and (kind, unit, window) not in known:
            state.journal.drop(state.raised, key)
