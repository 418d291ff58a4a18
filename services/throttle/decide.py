"""Alerts: a limit or alert budget reached a level, said once per window instance. PURE."""

from __future__ import annotations

from events.policy import AlertBudget, AlertRaised, Limit, rolling_minutes
from projections import budgets, watches
from projections.budgets import LEVELS
from projections.records import Raised
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "throttle"


def decide(state: State, now: int, _inputs: Inputs) -> Decisions:
    """Levels that rose in the scopes this turn touched; a jump raises the highest only."""
    for key in sorted(state.dirty_scopes):
        for limit, amount in budgets.amounts(state, key, now):
            if level := budgets.level(amount, limit.amount):
                yield from _once(state, "level", key, limit, amount, level, now)
        if key == "global":
            for budget in state.policy.alert_budgets:
                yield from _budget(state, budget, now)


def _budget(state: State, budget: AlertBudget, now: int) -> Decisions:
    """Alert budgets look at what is used, not at what is held."""
    spent = budgets.used(state, "global", budget.window, now).of(budget.unit)
    if budget.amount > 0 and 100 * spent >= budget.threshold_percent * budget.amount:
        yield from _once(state, "budget", "global", budget, spent, 1, now)


def _once(
    state: State, kind: str, key: str, of: Limit | AlertBudget, amount: int, level: int, now: int
) -> Decisions:
    """The alert, unless its level was said before for this window instance."""
    start, word = budgets.used(state, key, of.window, now).start, LEVELS[level]
    alert = AlertRaised(kind, key, of.unit, of.window, start, word, amount, of.amount)
    before = state.raised.get(watches.key_of(alert.kind, alert.scope, alert.unit, alert.window))
    if rolling_minutes(alert.window):
        if before is not None:
            before = _rolled(state, alert, before, level, now)
        alert.instance = now if before is None else before.instance
    if before is None or before.instance != alert.instance or level > before.level:
        yield decided(alert, BY)


def _rolled(state: State, alert: AlertRaised, before: Raised, level: int, now: int) -> Raised:
    """What counts as said of a rolling window, which has no calendar instance: each level is armed
    again after one full length below it."""
    for watch in watches.watches(state, alert.scope):
        if (watch.kind, watch.unit, watch.window) == (alert.kind, alert.unit, alert.window):
            known = watches.standing(state, alert.scope, watch, before, now)
            return watches.armed(known, level, now, watch.length)
    return before


DECIDER = Decider(BY, decide, frozenset({AlertRaised}), entire=True)
