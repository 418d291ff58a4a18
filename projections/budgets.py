"""Budgets: what every scope has used and holds against its limits, and what they still admit.

``refusal`` is the check of admission; everything else here it stands on, or shows. What changes a
scope stands in ``buckets``.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import add
from typing import Any

import msgspec

from events.policy import UNITS, Limit
from projections.scopes import SCOPES_MAX, kind_of, place_of
from projections.shares import reach, share_of_limit
from projections.state import Check, State
from projections.windows import (
    Used,
    resets_at,
    sum_of,
)

_NONE: dict[str, Used] = {}
LEVELS = ("NONE", "WARNING", "SOFT", "HARD", "CRITICAL")


def used(state: State, key: str, window: str, at: int) -> Used:
    """Settled use of the scope ``key`` in its window at ``at``."""
    cached = state.sums.get(key)
    if cached is None:
        cached = state.sums[key] = {}
    use = cached.get(window)
    if use is not None and use.valid_from <= at < use.end:
        return use
    cached[window] = use = sum_of(state.scopes.get(key), window, at)
    return use


# -- limits ----------------------------------------------------------------------------------


def limits_for(state: State, key: str) -> tuple[Limit, ...]:
    """The limits on the scope ``key``: those of its kind, overridden by its own."""
    limits = state.limits_by_scope.get(key)
    if limits is None:
        kind = kind_of(key)
        chosen = {(x.unit, x.window): x for x in state.policy.limits if x.scope == kind}
        chosen.update({(x.unit, x.window): x for x in state.policy.limits if x.scope == key})
        limits = tuple(sorted(chosen.values()))
        if len(state.limits_by_scope) < SCOPES_MAX:
            state.limits_by_scope[key] = limits
    return limits


def held(state: State, key: str, unit: str) -> int:
    scope = state.scopes.get(key)
    if scope is None:
        return 0
    if unit == "tokens":
        return scope.held_tokens
    return scope.held_nanos if unit == "money" else scope.held_tasks


def level(amount: int, limit: int) -> int:
    """Index into LEVELS of ``amount`` (used + held) against ``limit``, in integers.

    NONE < 80 % ≤ WARNING < 90 ≤ SOFT < 95 ≤ HARD ≤ 99 < CRITICAL; a limit of 0 is CRITICAL.
    """
    if limit <= 0:
        return 4
    share = 100 * amount
    if share < 80 * limit:
        return 0
    if share < 90 * limit:
        return 1
    if share < 95 * limit:
        return 2
    return 3 if share <= 99 * limit else 4


def gate(priority: int, limit: int) -> int:
    """The largest ``used + held + estimate`` a task of ``priority`` (0 low … 3 critical) may reach:
    low < 90 %, normal < 95 %, high ≤ 99 %, critical ≤ 100 %. A limit of 0 refuses even nothing."""
    if limit <= 0:
        return -1
    if priority <= 1:
        return (limit * (90 if priority == 0 else 95) - 1) // 100
    return limit * 99 // 100 if priority == 2 else limit


def least_limit(priority: int, amount: int) -> int:
    """The smallest limit whose gate lets ``amount`` pass: the inverse of ``gate``."""
    if priority <= 1:
        return -(-(100 * amount + 1) // (90 if priority == 0 else 95))
    return max(1, -(-100 * amount // 99) if priority == 2 else amount)


class Refusal(msgspec.Struct, frozen=True):
    """Why a task is not admitted: which limit, what is missing, when it resets (µs; 0: never)."""

    scope: str
    unit: str
    window: str
    limit: int
    missing: int
    resets_at: int

    @property
    def never(self) -> bool:
        return self.resets_at == 0


def refusal(
    state: State,
    keys: tuple[str, ...],
    priority: int,
    ask: tuple[int, int, int],
    now: int,
    kept: dict[str, list[int]] | None = None,
    *,
    holds: bool = True,
) -> Refusal | None:
    """None when ``ask`` (tokens, nanos, tasks) fits every window of every scope, else why not.

    ``kept`` is room kept for others, per scope; without ``holds`` only settled use counts.
    Whole set or nothing: nothing is changed here.
    """
    if priority == 3 and state.policy.critical_overdraft:
        return None
    scopes = state.scopes
    for key in keys:
        checks = state.checks_by_scope.get(key)
        if checks is None:
            checks = _checks(state, key)
        if not checks:
            continue
        place = key if key in scopes else place_of(key, scopes)
        scope, sums = scopes.get(place), state.sums.get(place, _NONE)
        tokens, nanos, tasks = ask
        if scope is not None and holds:
            tokens += scope.held_tokens
            nanos += scope.held_nanos
            tasks += scope.held_tasks
        needed = tokens, nanos, tasks
        if kept and key in kept:
            needed = tuple(map(add, needed, kept[key]))
        for check in checks:
            _, window, which, gates, is_share = check
            use = sums.get(window)
            if use is None or not use.valid_from <= now < use.end:
                use = used(state, place, window, now)
            amount = needed[which] + use.amounts[which]
            if amount > gates[priority] or (is_share and now < state.meta.latest):
                resets = resets_at(window, use, now)
                return _refused(state, key, check, ask[which], amount, priority, resets)
    return None


def _checks(state: State, key: str) -> tuple[Check, ...]:
    """The limits of a scope with their gates worked out, kept until the policy changes."""
    checks = tuple(
        (
            x,
            x.window,
            UNITS.index(x.unit),
            (gate(0, x.amount), gate(1, x.amount), gate(2, x.amount), gate(3, x.amount)),
            share_of_limit(state.policy, x) is not None,
        )
        for x in limits_for(state, key)
    )
    if len(state.checks_by_scope) < SCOPES_MAX:
        state.checks_by_scope[key] = checks
    return checks


def _refused(
    state: State,
    key: str,
    check: Check,
    asked: int,
    amount: int,
    priority: int,
    resets: int,
) -> Refusal:
    limit, _, _, gates, is_share = check
    bound = gates[priority]
    missing = max(0, amount - bound)
    if is_share:  # nobody's word is needed for the whole
        bound = gate(priority, reach(state.policy, limit))
    again = 0  # never: it alone is more than the gate lets pass
    if not missing:  # a clock that went back: other buses may have what was used here since
        again = state.meta.latest
    elif asked <= bound:
        again = resets
    return Refusal(key, limit.unit, limit.window, limit.amount, missing, again)


def window_rows(state: State, now: int) -> list[dict[str, Any]]:
    """Every limited window of every scope seen so far: used, held, limit, level, resets_at."""
    rows: list[dict[str, Any]] = []
    named = {x.scope for x in state.policy.limits if ":" in x.scope}
    for key in sorted({"global", *state.scopes, *named}):
        for limit in limits_for(state, key):
            use = used(state, key, limit.window, now)
            spent, reserved = use.of(limit.unit), held(state, key, limit.unit)
            rows.append(
                {
                    "scope": key,
                    "unit": limit.unit,
                    "window": limit.window,
                    "used": spent,
                    "held": reserved,
                    "limit": limit.amount,
                    "level": LEVELS[level(spent + reserved, limit.amount)],
                    "starts_at": use.start,
                    "resets_at": use.end,
                }
            )
    return rows


def amounts(state: State, key: str, now: int) -> Iterator[tuple[Limit, int]]:
    """Each limit of a scope, with what is used and held of its window."""
    for limit in limits_for(state, key):
        use = used(state, key, limit.window, now).of(limit.unit)
        yield limit, use + held(state, key, limit.unit)


def scope_level(state: State, key: str, now: int) -> int:
    """The strictest level over all windows of a scope."""
    levels = (level(amount, limit.amount) for limit, amount in amounts(state, key, now))
    return max(levels, default=0)
