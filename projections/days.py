"""Report days: calendar days of the configured zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

DAYS_KEPT = 400


class Day:
    """The report day of a moment: its date and its half-open interval in µs. A cache."""

    __slots__ = ("date", "end", "start")

    def __init__(self, date: str, start: int, end: int) -> None:
        self.date, self.start, self.end = date, start, end


def day_of(at: int, zone: ZoneInfo) -> Day:
    """The calendar day of ``at`` in ``zone``; days of 23 and 25 hours come out right."""
    local = datetime.fromtimestamp(at // 1_000_000, zone)
    start = datetime(local.year, local.month, local.day, tzinfo=zone)
    following = datetime.fromordinal(start.toordinal() + 1).replace(tzinfo=zone)
    return Day(
        start.date().isoformat(),
        int(start.timestamp()) * 1_000_000,
        int(following.timestamp()) * 1_000_000,
    )
