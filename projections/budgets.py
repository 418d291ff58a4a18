"""Windows and holds: what every scope has used and what is held for running work.

Only the finest buckets are stored (hours; minutes of the last 24 h); a window is a sum over them,
so a new limit sees history at once and nothing is ever reset by a job. Windows are half-open UTC
intervals of the event's ``at``: an event exactly on a boundary belongs to the later one.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from events.policy import Limit, PolicyChanged
from events.task import Charge

if TYPE_CHECKING:
    from projections.state import State

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
MONDAY = 4 * DAY  # 1970-01-05, the first Monday of the epoch
# The longest windows are a month, and a day by minutes. More is kept, so that a late correction
# finds its own, and a clock that steps back finds what was used by then.
HOURS_KEPT = 105 * 24
MINUTES_KEPT = 3 * 24 * 60
SCOPES_MAX = 10_000
UNITS = ("tokens", "money", "tasks")
SCOPE_KINDS = ("global", "worker", "agent", "model", "project")
LEVELS = ("NONE", "WARNING", "SOFT", "HARD", "CRITICAL")
ROLLING = re.compile(r"([1-9]\d{0,3})([hm])\Z")


class Bucket(msgspec.Struct, array_like=True, gc=False):
    """Settled use of one scope in one minute or hour. ``passed``: when that was changed last, in
    minutes of the time that has passed without a jump."""

    tokens: int = 0
    nanos: int = 0
    tasks: int = 0
    passed: int = 0


class Scope(msgspec.Struct, array_like=True, gc=False):
    """One scope: its buckets by hour and minute since the epoch, and what is held now."""

    hours: dict[int, Bucket] = {}
    minutes: dict[int, Bucket] = {}
    held_tokens: int = 0
    held_nanos: int = 0
    held_tasks: int = 0


class Used:
    """The settled use of one window of one scope: a cache over its buckets, never encoded."""

    __slots__ = ("end", "nanos", "start", "tasks", "tokens")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.tokens = self.nanos = self.tasks = 0

    def add(self, tokens: int, nanos: int, tasks: int) -> None:
        self.tokens += tokens
        self.nanos += nanos
        self.tasks += tasks

    def of(self, unit: str) -> int:
        return self.tokens if unit == "tokens" else self.nanos if unit == "money" else self.tasks


# -- windows ---------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def rolling_minutes(window: str) -> int:
    """Length of a rolling window in minutes, 0 for a calendar one. ValueError for neither."""
    if window in ("hour", "day", "week", "month"):
        return 0
    found = ROLLING.match(window)
    minutes = int(found[1]) * (60 if found[2] == "h" else 1) if found else 0
    if not 0 < minutes <= 24 * 60:
        raise ValueError(f"window {window!r} is not hour, day, week, month or rolling up to 24h")
    return minutes


@lru_cache(maxsize=64)
def _month(index: int) -> tuple[int, int]:
    year, month = divmod(index, 12)
    first = calendar.timegm((year, month + 1, 1, 0, 0, 0)) * 1_000_000
    days = calendar.monthrange(year, month + 1)[1]
    return first, first + days * DAY


def interval(window: str, at: int) -> tuple[int, int]:
    """The half-open interval ``[start, end)`` in µs of the window that ``at`` lies in.

    A rolling window ends with the minute of ``at``.
    """
    if window == "hour":
        return at - at % HOUR, at - at % HOUR + HOUR
    if window == "day":
        return at - at % DAY, at - at % DAY + DAY
    if window == "week":
        start = at - (at - MONDAY) % WEEK
        return start, start + WEEK
    if window == "month":
        moment = datetime.fromtimestamp(at // 1_000_000, UTC)
        return _month(moment.year * 12 + moment.month - 1)
    end = at - at % MINUTE + MINUTE
    return end - rolling_minutes(window) * MINUTE, end


def used(state: State, key: str, window: str, at: int) -> Used:
    """Settled use of the scope ``key`` in its window at ``at``."""
    cached = state.sums.get(key)
    if cached is None:
        cached = state.sums[key] = {}
    found = cached.get(window)
    # A rolling window holds for the minute it ends with, a calendar one for all its length.
    valid_from = found.end - MINUTE if found and rolling_minutes(window) else 0
    if found is not None and max(found.start, valid_from) <= at < found.end:
        return found
    cached[window] = found = _sum(state.scopes.get(key), window, at)
    return found


def _sum(scope: Scope | None, window: str, at: int) -> Used:
    start, end = interval(window, at)
    total = Used(start, end)
    if scope is None:
        return total
    rolling = rolling_minutes(window)
    size, buckets = (MINUTE, scope.minutes) if rolling else (HOUR, scope.hours)
    first, last = start // size, end // size
    if last - first <= len(buckets):
        found = [b for i in range(first, last) if (b := buckets.get(i)) is not None]
    else:
        found = [b for i, b in buckets.items() if first <= i < last]
    for bucket in found:
        total.add(bucket.tokens, bucket.nanos, bucket.tasks)
    return total


# -- charge and holding ---------------------------------------------------------------------


@lru_cache(maxsize=10_000)
def scope_keys(worker: str, agent: str, model: str, project: str) -> tuple[str, ...]:
    """The scopes that work of this kind touches; an empty name touches none."""
    keys = ["global"]
    if worker:
        keys.append("worker:" + worker)
    if agent:
        keys.append("agent:" + agent)
    if model:
        keys.append("model:" + model)
    if project:
        keys.append("project:" + project)
    return tuple(keys)


def scope(state: State, key: str) -> tuple[str, Scope]:
    """The scope ``key``, opened when new; past 10,000 of them new ones share ``<kind>:other``."""
    found = state.scopes.get(key)
    if found is None:
        if len(state.scopes) >= SCOPES_MAX and not key.endswith(":other"):
            return scope(state, key.partition(":")[0] + ":other")
        found = Scope({}, {})
        state.journal.put(state.scopes, key, found)
    return key, found


def _counted(state: State, key: str) -> str:
    """The scope in which work of ``key`` is counted: its own, or the one that the rest share."""
    if key in state.scopes or len(state.scopes) < SCOPES_MAX:
        return key
    return key.partition(":")[0] + ":other"


def book(state: State, at: int, charged: Charge) -> None:
    """Add usage to every scope it touches, in the windows of ``at``."""
    at = charged.window_at or at
    minute, hour, passed = at // MINUTE, at // HOUR, state.meta.passed // MINUTE
    tokens, nanos, tasks = charged.tokens, charged.nanos, charged.tasks
    journal, sums = state.journal, state.sums
    scopes, dirty = state.scopes, state.dirty_scopes
    # The hottest loop of replay: a call that would do nothing is not made.
    journaling, rolling = journal.entries is not None, state.rolling
    for key in scope_keys(charged.worker, charged.agent, charged.model, charged.project):
        found = scopes.get(key)
        if found is None:
            key, found = scope(state, key)
        if rolling:
            state.before_change(key)
        bucket = found.hours.get(hour)
        if bucket is None:
            prune(state, found)
            bucket = Bucket()
            journal.put(found.hours, hour, bucket)
        if journaling:
            journal.touch(bucket)
        bucket.tokens += tokens
        bucket.nanos += nanos
        bucket.tasks += tasks
        bucket.passed = passed
        bucket = found.minutes.get(minute)
        if bucket is None:
            bucket = Bucket()
            journal.put(found.minutes, minute, bucket)
        if journaling:
            journal.touch(bucket)
        bucket.tokens += tokens
        bucket.nanos += nanos
        bucket.tasks += tasks
        bucket.passed = passed
        if key in sums:
            _add_to_sums(sums[key], at, charged)
        dirty.add(key)


def _add_to_sums(sums: dict[str, Used], at: int, charged: Charge) -> None:
    for total in sums.values():
        if total.start <= at < total.end:
            total.add(charged.tokens, charged.nanos, charged.tasks)


def prune(state: State, found: Scope, *, confirmed: bool = False) -> None:
    """Forget what no window can reach: by the clock and, unless that is ``confirmed``, by the time
    that has passed without a jump. Set-based, so that dict order never matters."""
    now, passed = state.meta.at, state.meta.passed // MINUTE
    for buckets, oldest, kept in (
        (found.minutes, now // MINUTE - MINUTES_KEPT, MINUTES_KEPT),
        (found.hours, now // HOUR - HOURS_KEPT, HOURS_KEPT * 60),
    ):
        since = passed if confirmed else passed - kept
        for index in [i for i, b in buckets.items() if i < oldest and b.passed <= since]:
            state.journal.drop(buckets, index)


def hold(state: State, keys: tuple[str, ...], tokens: int, nanos: int, tasks: int) -> None:
    """Hold (or, with negative amounts, release) in every scope of ``keys``."""
    scopes, dirty, journal = state.scopes, state.dirty_scopes, state.journal
    journaling, rolling = journal.entries is not None, state.rolling
    for key in keys:
        found = scopes.get(key)
        if found is None:
            key, found = scope(state, key)
        if rolling:
            state.before_change(key)
        if journaling:
            journal.touch(found)
        found.held_tokens += tokens
        found.held_nanos += nanos
        found.held_tasks += tasks
        dirty.add(key)


# -- limits ----------------------------------------------------------------------------------


def limits_for(state: State, key: str) -> tuple[Limit, ...]:
    """The limits on the scope ``key``: those of its kind, overridden by its own."""
    found = state.limits_by_scope.get(key)
    if found is None:
        kind = key.partition(":")[0]
        chosen = {(x.unit, x.window): x for x in state.policy.limits if x.scope == kind}
        chosen.update({(x.unit, x.window): x for x in state.policy.limits if x.scope == key})
        found = tuple(sorted(chosen.values()))
        if len(state.limits_by_scope) < SCOPES_MAX:
            state.limits_by_scope[key] = found
    return found


def held(state: State, key: str, unit: str) -> int:
    found = state.scopes.get(key)
    if found is None:
        return 0
    if unit == "tokens":
        return found.held_tokens
    return found.held_nanos if unit == "money" else found.held_tasks


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
    for key in keys:
        checks = state.checks_by_scope.get(key)
        if checks is None:
            checks = _checks(state, key)
        if not checks:
            continue
        counted = _counted(state, key)
        found = state.scopes.get(counted)
        held_now = (found.held_tokens, found.held_nanos, found.held_tasks) if found else (0, 0, 0)
        room = kept.get(key) if kept else None
        for limit, which, gates in checks:
            spent = used(state, counted, limit.window, now).of(limit.unit)
            amount = ask[which] + spent + (held_now[which] if holds else 0)
            if room:
                amount += room[which]
            if amount > gates[priority]:
                return _refused(state, key, limit, ask[which], amount, gates[priority], now)
    return None


Check = tuple[Limit, int, tuple[int, int, int, int]]


def _checks(state: State, key: str) -> tuple[Check, ...]:
    """The limits of a scope with their gates worked out, kept until the policy changes."""
    found = tuple(
        (
            x,
            UNITS.index(x.unit),
            (gate(0, x.amount), gate(1, x.amount), gate(2, x.amount), gate(3, x.amount)),
        )
        for x in limits_for(state, key)
    )
    if len(state.checks_by_scope) < SCOPES_MAX:
        state.checks_by_scope[key] = found
    return found


def _refused(
    state: State, key: str, limit: Limit, asked: int, amount: int, most: int, now: int
) -> Refusal:
    never = asked > most
    resets_at = 0 if never else _resets_at(limit.window, used(state, key, limit.window, now), now)
    return Refusal(key, limit.unit, limit.window, limit.amount, amount - most, resets_at)


def _resets_at(window: str, found: Used, now: int) -> int:
    """When a window's use begins to fall: its end, or for a rolling one the next minute."""
    return found.end if rolling_minutes(window) == 0 else now - now % MINUTE + MINUTE


def window_rows(state: State, now: int) -> list[dict[str, Any]]:
    """Every limited window of every scope seen so far: used, held, limit, level, resets_at."""
    rows: list[dict[str, Any]] = []
    named = {x.scope for x in state.policy.limits if ":" in x.scope}
    for key in sorted({"global", *state.scopes, *named}):
        for limit in limits_for(state, key):
            found = used(state, key, limit.window, now)
            spent, reserved = found.of(limit.unit), held(state, key, limit.unit)
            rows.append(
                {
                    "scope": key,
                    "unit": limit.unit,
                    "window": limit.window,
                    "used": spent,
                    "held": reserved,
                    "limit": limit.amount,
                    "level": LEVELS[level(spent + reserved, limit.amount)],
                    "starts_at": found.start,
                    "resets_at": found.end,
                }
            )
    return rows


def scope_level(state: State, key: str, now: int) -> int:
    """The strictest level over all windows of a scope."""
    return max(
        (
            level(
                used(state, key, x.window, now).of(x.unit) + held(state, key, x.unit),
                x.amount,
            )
            for x in limits_for(state, key)
        ),
        default=0,
    )


def policy_problem(policy: PolicyChanged) -> str:
    """What is wrong with a policy, "" when nothing is."""
    for limit in (*policy.limits, *policy.alert_budgets):
        try:
            rolling_minutes(limit.window)
        except ValueError as error:
            return str(error)
        if limit.unit not in UNITS:
            return f"unit {limit.unit!r} is not one of {', '.join(UNITS)}"
        if not 0 <= limit.amount <= 10**18:
            return f"amount {limit.amount} is out of range"
    for limit in policy.limits:
        if limit.scope.partition(":")[0] not in SCOPE_KINDS:
            return f"scope {limit.scope!r} is not one of {', '.join(SCOPE_KINDS)}"
    try:
        ZoneInfo(policy.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return f"timezone {policy.timezone!r} is unknown"
    return ""
