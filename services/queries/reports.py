"""Report periods (days, weeks, months), their figures and what stands out in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import msgspec
import typer

from events.envelope import text_of
from projections import report_views
from projections.days import Day, day_of
from projections.format import first_line
from projections.state import State
from projections.views import iso
from services.client.bus import Bus
from services.intake.schema import OWN_TIME_US
from services.queries.report_facts import Collector, Facts

DEAREST = 10
DAYS = (date(1970, 1, 2), date(9998, 12, 31))  # a bus has no others


class Period(msgspec.Struct, frozen=True):
    """What is reported: its name, its report days, and its interval in µs."""

    name: str
    days: list[str]
    start: int
    end: int

    @property
    def whole(self) -> str:
        return {1: "DAILY", 7: "WEEKLY"}.get(len(self.days), "MONTHLY")


def period_of(
    state: State, now: int, day: str | None, week: str | None, month: str | None
) -> Period:
    today = date.fromisoformat(day_of(now, state.zone).date)
    if week is not None:
        first = _existing(_week(week, today))
        name = "{}-W{:02}".format(*first.isocalendar())
        return _spanning(state, name, [first + timedelta(n) for n in range(7)])
    if month is not None:
        first = _existing(_month(month, today))
        days: list[date] = []
        while (following := first + timedelta(len(days))).month == first.month:
            days.append(following)
        return _spanning(state, f"{first:%Y-%m}", days)
    wanted_day = _named(day or "today", today, {"today": 0, "yesterday": 1}, date.fromisoformat)
    return _spanning(state, _existing(wanted_day).isoformat(), [wanted_day])


def _existing(day: date) -> date:
    if not DAYS[0] <= day <= DAYS[1]:
        raise typer.BadParameter(f"{day}: days go from {DAYS[0]} to {DAYS[1]}")
    return day


def _named(text: str, today: date, words: dict[str, int], parse: Callable[[str], date]) -> date:
    if text in words:
        return today - timedelta(words[text])
    try:
        return parse(text)
    except ValueError:
        known = ", ".join(words)
        raise typer.BadParameter(
            f"{text!r} is neither a date like 2026-11-22 nor {known}"
        ) from None


def _week(text: str, today: date) -> date:
    monday = today - timedelta(today.weekday())
    if text in ("this", "last"):
        return monday - timedelta(7 * (text == "last"))
    match = re.fullmatch(r"(\d{4})-?W(\d{1,2})", text)
    try:
        if match:
            return date.fromisocalendar(int(match[1]), int(match[2]), 1)
        monday = date.fromisoformat(text)
        return monday - timedelta(monday.weekday())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a week like 2026-W47, this or last") from None


def _month(text: str, today: date) -> date:
    first = today.replace(day=1)
    if text in ("this", "last"):
        return (first - timedelta(text == "last")).replace(day=1)
    match = re.fullmatch(r"(\d{4})-(\d{1,2})", text)
    try:
        if match:
            return date(int(match[1]), int(match[2]), 1)
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not a month like 2026-11, this or last")


def _spanning(state: State, name: str, days: list[date]) -> Period:
    return Period(
        name,
        [day.isoformat() for day in days],
        _day(state, days[0]).start,
        _day(state, days[-1]).end,
    )


def _day(state: State, day: date) -> Day:
    """Its interval in the zone of the policy: found from the noon of that date in UTC and the two
    noons beside it, since zones reach from -12 to +14 hours."""
    noon = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400 + 43_200
    for offset in (0, -86_400, 86_400):
        span = day_of((noon + offset) * 1_000_000, state.zone)
        if span.date == day.isoformat():
            return span
    raise typer.BadParameter(f"{day.isoformat()} does not exist in {state.policy.timezone}")


def report_standing(state: State, period: Period, now: int) -> str:
    """The zone, and whether the figures can still change."""
    zone = state.policy.timezone
    if now < period.end:
        return f"{zone}, so far: it ends {iso(period.end)}"
    known = state.reports.get(period.name)
    return f"{zone}, version {known.version}" if known and known.version else zone


def report_figures(state: State, period: Period) -> dict[str, Any]:
    if len(period.days) > 1:
        return report_views.period_report(state, period.days, period.name)
    known = state.reports.get(period.name)
    return report_views.day_report(state, period.name, known.version if known else 0)


def report_facts(bus: Bus, period: Period) -> Facts:
    collector = Collector(period.start, period.end)
    # A place on the log is the time of its turn in ms, or later where turns were crowded; what is
    # told late stands up to two days behind.
    before, until = period.start // 1000 - 1, (period.end + OWN_TIME_US) // 1000 + 60_000
    for events in bus.read(f"{before}-0", f"{until}-0"):
        collector.add(events)
    return collector.facts(DEAREST)


def report_texts(bus: Bus, facts: Facts) -> dict[str, str]:
    """The first lines of the prompts of the tasks that are named."""
    tasks = [spent.task for spent in facts.dearest]
    replies = bus.client.pipeline(("LINDEX", bus.keys.task_index(task), 0) for task in tasks)
    places = {t: r.decode() for t, r in zip(tasks, replies, strict=True) if isinstance(r, bytes)}
    events = bus.events_at(list(places.values()))
    return {
        task: first_line(text_of(events[place], "text"))
        for task, place in places.items()
        if place in events and events[place].type == "task.submitted"
    }
