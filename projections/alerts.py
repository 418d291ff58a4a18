"""Which levels were already said, so that each is said once per window instance.

A calendar window names its own instance. A rolling window has none, so it is remembered until when
its scope was last at each level: one full length of the window below a level arms that level again,
and what is said then begins a new instance. Between two events only time passes, and what falls out
of the window with it is known to the minute, so this is exact however rarely anything happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from events.envelope import Event
from projections import budgets, tallies
from projections.budgets import LEVELS, MINUTE

if TYPE_CHECKING:
    from projections.state import State

NEVER = 1 << 400  # more than anything can come to


class Raised(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The window instance (its start, µs), the highest level said for it, and where that stands.

    Of rolling windows also: until when (µs) the scope was last at each level from WARNING on, or
    above it; known up to ``seen``.
    """

    instance: int
    level: int
    log_id: str = ""
    seen: int = 0
    over: tuple[int, ...] = ()


class AlertWatch(NamedTuple):
    """A limit or alert budget with a rolling window, and from which amount on it is at each level
    from WARNING on."""

    kind: str
    unit: str
    window: str
    levels: tuple[int, ...]

    @property
    def length(self) -> int:
        return budgets.rolling_minutes(self.window) * MINUTE


def key_of(kind: str, scope: str, unit: str, window: str) -> str:
    """What an alert is about: ``level`` or ``budget``, scope, unit, window."""
    return f"{kind}|{scope}|{unit}|{window}"


def _what(key: str) -> tuple[str, str, str, str]:
    """The inverse of ``key_of``; a scope may hold any character."""
    kind, _, rest = key.partition("|")
    scope, unit, window = rest.rsplit("|", 2)
    return kind, scope, unit, window


def watches(state: State, scope: str) -> tuple[AlertWatch, ...]:
    """The rolling limits and alert budgets on ``scope``, kept until the policy changes."""
    found = state.watches_by_scope.get(scope)
    if found is None:
        limits = [x for x in budgets.limits_for(state, scope) if _rolls(x.window)]
        made = [AlertWatch("level", x.unit, x.window, _levels(x.amount)) for x in limits]
        if scope == "global":
            for one in state.policy.alert_budgets:
                most = -(-one.threshold_percent * one.amount // 100) if one.amount > 0 else NEVER
                if _rolls(one.window):
                    made.append(AlertWatch("budget", one.unit, one.window, (most,)))
        found = tuple(made)
        if len(state.watches_by_scope) < budgets.SCOPES_MAX:
            state.watches_by_scope[scope] = found
    return found


def any_rolls(state: State) -> bool:
    """Whether the policy has a rolling window at all."""
    policy = state.policy
    return any(_rolls(one.window) for one in (*policy.limits, *policy.alert_budgets))


def rolls(key: str) -> bool:
    """Whether what an alert is about has a rolling window."""
    return _rolls(_what(key)[3])


def _rolls(window: str) -> bool:
    return budgets.rolling_minutes(window) > 0


def _levels(limit: int) -> tuple[int, ...]:
    """The smallest amount at WARNING, SOFT, HARD and CRITICAL of a limit; see throttle.level."""
    if limit <= 0:
        return (-NEVER,) * 4
    return (*(-(-percent * limit // 100) for percent in (80, 90, 95)), 99 * limit // 100 + 1)


# -- rolling windows -------------------------------------------------------------------------


def before_change(state: State, scope: str) -> None:
    """A charge or a hold is about to change ``scope``: note how it stood until now. What stands
    for no time at all, between two events of one turn, does not count."""
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
    found = [now if amount >= most else 0 for most in watch.levels]
    minutes = budgets.rolling_minutes(watch.window)
    first, last = seen // MINUTE - minutes + 1, now // MINUTE - minutes + 1
    record = state.scopes.get(scope)
    if first == last or record is None or all(found):
        return found
    # What has left the window since, the newest first: each minute was in it up to its own end.
    for index in sorted((i for i in record.minutes if first <= i < last), reverse=True):
        bucket = record.minutes[index]
        amount += {"tokens": bucket.tokens, "money": bucket.nanos}.get(watch.unit, bucket.tasks)
        for n, most in enumerate(watch.levels):
            if not found[n] and amount >= most:
                found[n] = (index + minutes) * MINUTE
    return found


# -- folds -----------------------------------------------------------------------------------


def raised(state: State, event: Event) -> None:
    payload = event.data
    tallies.alerted(state, payload.unit, payload.level)
    key, level = (
        key_of(payload.kind, payload.scope, payload.unit, payload.window),
        LEVELS.index(payload.level),
    )
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
        for scope in {_what(key)[1] for key in state.raised}:
            before_change(state, scope)


def after_policy(state: State) -> None:
    """Forget what was said of rolling windows that nobody watches any more."""
    for key in list(state.raised):
        kind, scope, unit, window = _what(key)
        known = ((w.kind, w.unit, w.window) for w in watches(state, scope))
        if _rolls(window) and (kind, unit, window) not in known:
            state.journal.drop(state.raised, key)
