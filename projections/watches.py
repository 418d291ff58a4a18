"""Rolling windows that somebody watches: at which levels each was, and until when.

A calendar window names its own instance. A rolling window has none, so it is remembered until when
its scope was last at each level: one full length of the window below a level arms that level again,
and what is said then begins a new instance. Between two events only time passes, and what falls out
of the window with it is known to the minute, so this is exact however rarely anything happens.
"""

from __future__ import annotations

import msgspec

from events.policy import rolling_minutes
from projections import budgets
from projections.records import Raised
from projections.scopes import SCOPES_MAX
from projections.state import AlertWatch, State
from projections.windows import MINUTE

NEVER = 1 << 400  # more than anything can come to


def key_of(kind: str, scope: str, unit: str, window: str) -> str:
    """What an alert is about: ``level`` or ``budget``, scope, unit, window."""
    return f"{kind}|{scope}|{unit}|{window}"


def about(key: str) -> tuple[str, str, str, str]:
    """The inverse of ``key_of``; a scope may hold any character."""
    kind, _, rest = key.partition("|")
    scope, unit, window = rest.rsplit("|", 2)
    return kind, scope, unit, window


def watches(state: State, scope: str) -> tuple[AlertWatch, ...]:
    """The rolling limits and alert budgets on ``scope``, kept until the policy changes."""
    watched = state.watches_by_scope.get(scope)
    if watched is None:
        limits = [x for x in budgets.limits_for(state, scope) if _rolls(x.window)]
        made = [AlertWatch("level", x.unit, x.window, _levels(x.amount)) for x in limits]
        if scope == "global":
            for budget in state.policy.alert_budgets:
                from_on = NEVER
                if budget.amount > 0:
                    from_on = -(-budget.threshold_percent * budget.amount // 100)
                if _rolls(budget.window):
                    made.append(AlertWatch("budget", budget.unit, budget.window, (from_on,)))
        watched = tuple(made)
        if len(state.watches_by_scope) < SCOPES_MAX:
            state.watches_by_scope[scope] = watched
    return watched


def rolls(key: str) -> bool:
    """Whether what an alert is about has a rolling window."""
    return _rolls(about(key)[3])


def _rolls(window: str) -> bool:
    return rolling_minutes(window) > 0


def _levels(limit: int) -> tuple[int, ...]:
    """The smallest amount at WARNING, SOFT, HARD and CRITICAL of a limit; see budgets.level."""
    if limit <= 0:
        return (-NEVER,) * 4
    return (*(-(-percent * limit // 100) for percent in (80, 90, 95)), 99 * limit // 100 + 1)


def before_change(state: State, scope: str) -> None:
    """A charge or a hold is about to change ``scope``: note how it stood until now. What stands
    for no time at all, between two events of one turn, does not count. Call it where the policy
    has a rolling window (``state.rolling``)."""
    for watch in watches(state, scope):
        key = key_of(watch.kind, scope, watch.unit, watch.window)
        known = state.raised.get(key)
        if known is not None and known.seen < state.meta.at:
            state.journal.put(state.raised, key, standing(state, scope, watch, known))


def standing(
    state: State, scope: str, watch: AlertWatch, known: Raised, now: int | None = None
) -> Raised:
    """``known`` as it is ``now`` (else at the last event), when only time passed since
    ``known.seen``.

    A level that is reached after one full length below it is armed: it counts as not said.
    """
    now = state.meta.at if now is None else now
    if now <= known.seen:
        return known
    since = _reached_until(state, scope, watch, known.seen, now)
    reached = sum(end > 0 for end in since)
    known = armed(known, reached, known.seen, watch.length)
    over = tuple(
        max(end, known.over[n] if n < len(known.over) else 0) for n, end in enumerate(since)
    )
    return msgspec.structs.replace(known, seen=now, over=over)


def armed(known: Raised, level: int, at: int, length: int) -> Raised:
    """``known`` when ``level`` is reached at ``at``: less counts as said where the lowest level up
    to it was not reached for one full length before, and a new instance begins then."""
    for n in range(min(level, known.level)):
        if at - (known.over[n] if n < len(known.over) else 0) >= length:
            return msgspec.structs.replace(known, instance=at, level=n)
    return known


def _reached_until(state: State, scope: str, watch: AlertWatch, seen: int, now: int) -> list[int]:
    """For each level until when (at most ``now``) the scope was last at it or above, 0 where it
    was not since ``seen``."""
    amount = budgets.used(state, scope, watch.window, now).of(watch.unit)
    if watch.kind == "level":
        amount += budgets.held(state, scope, watch.unit)
    until = [now if amount >= level else 0 for level in watch.levels]
    minutes = rolling_minutes(watch.window)
    first, last = seen // MINUTE - minutes + 1, now // MINUTE - minutes + 1
    record = state.scopes.get(scope)
    if first == last or record is None or all(until):
        return until
    # What has left the window since, the newest first: each minute was in it up to its own end.
    for index in sorted((i for i in record.minutes if first <= i < last), reverse=True):
        bucket = record.minutes[index]
        amount += {"tokens": bucket.tokens, "money": bucket.nanos}.get(watch.unit, bucket.tasks)
        for n, level in enumerate(watch.levels):
            if not until[n] and amount >= level:
                until[n] = (index + minutes) * MINUTE
    return until
