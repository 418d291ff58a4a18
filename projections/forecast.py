"""What comes if it goes on like this: burn rate, when limits are reached, the day and the month.

All in integers. The rate is what the last sixty minutes used, by the hour; on a bus younger than
that, what its minutes used (at least ten of them), by the hour.
"""

from __future__ import annotations

import msgspec

from events.money import hold_nanos
from events.policy import UNITS, rolling_minutes
from projections import budgets
from projections.records import Learnt, Scope
from projections.state import State
from projections.windows import HOUR, MINUTE

MINUTES = 60
MINUTES_LEAST = 10
FAR = 100 * 366 * 24 * HOUR  # µs: beyond it no calendar helps


class Rate(msgspec.Struct, frozen=True):
    """What is used in an hour at the present rate. ``minutes``: how many it was measured over."""

    tokens: int = 0
    nanos: int = 0
    tasks: int = 0
    minutes: int = 0

    def of(self, unit: str) -> int:
        return (self.tokens, self.nanos, self.tasks)[UNITS.index(unit)]


class Reach(msgspec.Struct, frozen=True):
    """When a limit is reached at the present rate: ``at`` in µs, 0 for never (``why`` says so).

    ``before_reset``: whether that comes before its window ends; a rolling window has no end.
    """

    scope: str
    unit: str
    window: str
    limit: int
    used: int
    held: int
    per_hour: int
    at: int
    resets_at: int
    before_reset: bool
    why: str = ""


class Projection(msgspec.Struct, frozen=True):
    """What a window will have used at its end: what it has, and the rate for the rest of it."""

    window: str
    tokens: int
    nanos: int
    tasks: int
    ends_at: int


class Error(msgspec.Struct, frozen=True):
    """How far the holds of a kind and model were off: ``percent`` of what was used."""

    kind: str
    model: str
    samples: int
    held_tokens: int
    used_tokens: int
    error_tokens: int
    percent: int
    overruns: int


def rate(state: State, key: str, now: int) -> Rate:
    """The burn rate of a scope at ``now``, µs."""
    scope = state.scopes.get(key)
    if scope is None:
        return Rate()
    last = now // MINUTE
    buckets = [
        (i, bucket) for i in range(last - MINUTES + 1, last + 1) if (bucket := scope.minutes.get(i))
    ]
    minutes = MINUTES
    if buckets and _first(scope) > last - MINUTES:
        minutes = max(MINUTES_LEAST, last - buckets[0][0] + 1)
    return Rate(
        sum(bucket.tokens for _, bucket in buckets) * MINUTES // minutes,
        sum(bucket.nanos for _, bucket in buckets) * MINUTES // minutes,
        sum(bucket.tasks for _, bucket in buckets) * MINUTES // minutes,
        minutes,
    )


def _first(scope: Scope) -> int:
    """The minute the scope was first used in, as far as is remembered."""
    first_hour = min(scope.hours, default=0) * 60
    within = [i for i in scope.minutes if i >= first_hour]
    return min(within, default=first_hour) if len(scope.hours) == 1 else first_hour


def reaches(state: State, now: int) -> list[Reach]:
    """For every limited window of every scope: when it is full at the present rate."""
    rates: dict[str, Rate] = {}
    rows: list[Reach] = []
    for row in budgets.window_rows(state, now):
        key: str = row["scope"]
        if key not in rates:
            rates[key] = rate(state, key, now)
        rows.append(_reach(row["window"], row, rates[key].of(row["unit"]), now))
    return rows


def _reach(window: str, row: dict[str, int], per_hour: int, now: int) -> Reach:
    left = row["limit"] - row["used"] - row["held"]
    rolling = rolling_minutes(window)
    at, why = 0, ""
    if left <= 0:
        at = now
    elif per_hour <= 0:
        why = "nothing is used now"
    elif rolling and per_hour * rolling <= row["limit"] * MINUTES:
        why = "this rate stays below it"
    elif left * HOUR // per_hour > FAR:
        why = "not within a century"
    else:
        at = now + left * HOUR // per_hour
    ends = row["resets_at"]
    if at and not rolling and at >= ends:
        why = "it resets before"
    return Reach(
        str(row["scope"]),
        str(row["unit"]),
        window,
        row["limit"],
        row["used"],
        row["held"],
        per_hour,
        at,
        0 if rolling else ends,
        bool(at) and (rolling > 0 or at < ends),
        why,
    )


def projection(state: State, window: str, now: int) -> Projection:
    """What the calendar ``window`` will have used overall when it ends."""
    use = budgets.used(state, "global", window, now)
    per_hour, left = rate(state, "global", now), use.end - now
    return Projection(
        window,
        use.tokens + per_hour.tokens * left // HOUR,
        use.nanos + per_hour.nanos * left // HOUR,
        use.tasks + per_hour.tasks * left // HOUR,
        use.end,
    )


def errors(state: State) -> list[Error]:
    """The error of estimates, by kind and model."""
    return [_error(key, learnt) for key, learnt in sorted(state.learnt.items())]


def _error(key: str, x: Learnt) -> Error:
    kind, _, model = key.partition("|")
    percent = 100 * x.error_tokens // x.used_tokens if x.used_tokens else 0
    return Error(
        kind, model, x.samples, x.held_tokens, x.used_tokens, x.error_tokens, percent, x.overruns
    )


# -- the seed's own tables, worked out from prices and limits ----------------------------------


class Work(msgspec.Struct, frozen=True):
    """A row of the seed's tables. ``hourly``: tasks in an hour under the limit on tokens."""

    name: str
    tokens: int
    model: str
    nanos: int
    hourly: int


class Scenario(msgspec.Struct, frozen=True):
    """The seed's day of a hundred tasks: what it costs, and what it would on one model only."""

    nanos: int
    uniform_nanos: int
    cheaper_percent: int  # how much less a token of the cheap model costs


LIGHT, MEDIUM, HEAVY = (
    ("light", 2_000, "haiku"),
    ("medium", 4_000, "sonnet"),
    ("heavy", 8_000, "sonnet"),
)
DAY = ((40, LIGHT), (40, MEDIUM), (20, HEAVY))
CHEAP, DEAR = "haiku", "sonnet"


def capacity(state: State) -> list[Work]:
    """Light, medium and heavy work: what a task costs, and how many an hour admits."""
    limits = budgets.limits_for(state, "global")
    hour = [x.amount for x in limits if (x.unit, x.window) == ("tokens", "hour")]
    prices = state.policy.prices
    return [
        Work(
            name, tokens, model, hold_nanos(tokens, prices[model]), hour[0] // tokens if hour else 0
        )
        for name, tokens, model in (LIGHT, MEDIUM, HEAVY)
        if model in prices
    ]


def scenario(state: State) -> Scenario | None:
    """The seed's day; None where the book does not name its two models."""
    prices = state.policy.prices
    if CHEAP not in prices or DEAR not in prices or not prices[DEAR].dearest:
        return None
    cost = sum(n * hold_nanos(tokens, prices[model]) for n, (_, tokens, model) in DAY)
    uniform = sum(n * hold_nanos(tokens, prices[DEAR]) for n, (_, tokens, _) in DAY)
    cheap, dear = prices[CHEAP].dearest, prices[DEAR].dearest
    return Scenario(cost, uniform, 100 * (dear - cheap) // dear)
