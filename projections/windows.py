"""Windows: half-open UTC intervals of the event's ``at``, and sums over the buckets in them.

Only the finest buckets are stored (hours; minutes of the last days); a window is a sum over them,
so a new limit sees history at once and nothing is ever reset by a job. An event exactly on a
boundary belongs to the later window.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from functools import lru_cache

from events.policy import UNITS, PolicyChanged, rolling_minutes
from projections.records import Scope

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
MONDAY = 4 * DAY  # 1970-01-05, the first Monday of the epoch
# The longest windows are a month, and a day by minutes. More is kept, so that a late correction
# finds its own, and a clock that steps back finds what was used by then.
HOURS_KEPT = 105 * 24
MINUTES_KEPT = 3 * 24 * 60


class Used:
    """The settled use of one window of one scope: a cache over its buckets, never encoded. It holds
    from ``valid_from`` to its end: a rolling window for the minute it ends with."""

    __slots__ = ("amounts", "end", "start", "valid_from")

    def __init__(self, start: int, end: int, valid_from: int) -> None:
        self.start, self.end, self.valid_from = start, end, valid_from
        self.amounts = [0, 0, 0]  # in the order of ``UNITS``

    def add(self, tokens: int, nanos: int, tasks: int) -> None:
        amounts = self.amounts
        amounts[0] += tokens
        amounts[1] += nanos
        amounts[2] += tasks

    def of(self, unit: str) -> int:
        return self.amounts[UNITS.index(unit)]

    @property
    def tokens(self) -> int:
        return self.amounts[0]

    @property
    def nanos(self) -> int:
        return self.amounts[1]

    @property
    def tasks(self) -> int:
        return self.amounts[2]


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


def any_rolls(policy: PolicyChanged) -> bool:
    """Whether ``policy`` has a rolling window at all."""
    return any(rolling_minutes(x.window) for x in (*policy.limits, *policy.alert_budgets))


def sum_of(scope: Scope | None, window: str, at: int) -> Used:
    """What ``scope`` used in its window at ``at``."""
    start, end = interval(window, at)
    rolling = rolling_minutes(window)
    total = Used(start, end, max(start, end - MINUTE) if rolling else start)
    if scope is None:
        return total
    size, buckets = (MINUTE, scope.minutes) if rolling else (HOUR, scope.hours)
    first, last = start // size, end // size
    if last - first <= len(buckets):
        inside = [x for i in range(first, last) if (x := buckets.get(i)) is not None]
    else:
        inside = [x for i, x in buckets.items() if first <= i < last]
    for bucket in inside:
        total.add(bucket.tokens, bucket.nanos, bucket.tasks)
    return total


def resets_at(window: str, use: Used, now: int) -> int:
    """When a window's use begins to fall: its end, or for a rolling one the next minute."""
    return use.end if rolling_minutes(window) == 0 else now - now % MINUTE + MINUTE
