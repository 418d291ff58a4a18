"""report: what was spent and done in a day, a week or a month."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated, Any

import msgspec
import typer

from projections import report_views
from projections.days import Day, day_of
from projections.state import State
from projections.views import iso
from services.cli import bus, out, screens
from services.cli.bus import Bus
from services.cli.out import first_line
from services.cli.report_screen import screen
from services.intake.shapes import OWN_TIME_US
from services.reporter.daily import message
from services.reporter.facts import Collector, Facts
from services.runtime import replay

DEAREST = 10


class Period(msgspec.Struct, frozen=True):
    """What is reported: its name, its report days, and its interval in µs."""

    name: str
    days: list[str]
    start: int
    end: int

    @property
    def whole(self) -> str:
        return {1: "DAILY", 7: "WEEKLY"}.get(len(self.days), "MONTHLY")


def report(
    date_: Annotated[
        str | None, typer.Option("--date", help="A day: 2026-11-22, today or yesterday.")
    ] = None,
    week: Annotated[
        str | None, typer.Option(help="A week: 2026-W47, this or last; Monday begins it.")
    ] = None,
    month: Annotated[str | None, typer.Option(help="A month: 2026-11, this or last.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, in the seed's shape.")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the day's report on asb:tokens:report.")
    ] = False,
) -> None:
    """Tokens and cost of a day (today), a week or a month: per agent, model, kind and project,
    with the dearest tasks, failures, waits and the measured savings.

    Days are those of the policy's time zone; `asb:report:<date>` has those that are over.
    """
    if sum(x is not None for x in (date_, week, month)) > 1:
        raise typer.BadParameter("one of --date, --week and --month")
    if publish and (week or month):
        raise typer.BadParameter("--publish goes with a day")
    with bus.opened() as b:
        state, now = b.state(), b.now()
        period = _period(state, now, date_, week, month)
        cells = report_views.merged(state.days[d] for d in period.days if d in state.days)
        found = _figures(state, period)
        facts = _facts(b, period)
        texts = _texts(b, facts)
        if publish:
            _publish(b, state, period.name)
        if as_json:
            view = {**found, "facts": msgspec.to_builtins(facts), "as_of": state.meta.log_id}
            view["savings"] = screens.savings(state, cells)
            out.say_json(view)
            return
        head = f"{period.whole} REPORT {period.name} ({_standing(state, period, now)})"
        out.say(screen(head, found, facts, texts, screens.savings_line(state, cells), out.width()))


# -- which period --------------------------------------------------------------------------------


def _period(state: State, now: int, day: str | None, week: str | None, month: str | None) -> Period:
    today = date.fromisoformat(day_of(now, state.zone).date)
    if week is not None:
        first = _week(week, today)
        name = "{}-W{:02}".format(*first.isocalendar())
        return _spanning(state, name, [first + timedelta(n) for n in range(7)])
    if month is not None:
        first = _month(month, today)
        days: list[date] = []
        while (following := first + timedelta(len(days))).month == first.month:
            days.append(following)
        return _spanning(state, f"{first:%Y-%m}", days)
    found = _named(day or "today", today, {"today": 0, "yesterday": 1}, date.fromisoformat)
    return _spanning(state, found.isoformat(), [found])


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
        found = date.fromisoformat(text)
        return found - timedelta(found.weekday())
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
        found = day_of((noon + offset) * 1_000_000, state.zone)
        if found.date == day.isoformat():
            return found
    raise typer.BadParameter(f"{day.isoformat()} does not exist in {state.policy.timezone}")


def _standing(state: State, period: Period, now: int) -> str:
    """The zone, and whether the figures can still change."""
    zone = state.policy.timezone
    if now < period.end:
        return f"{zone}, so far: it ends {iso(period.end)}"
    known = state.reports.get(period.name)
    return f"{zone}, version {known.version}" if known and known.version else zone


# -- what is said --------------------------------------------------------------------------------


def _figures(state: State, period: Period) -> dict[str, Any]:
    if len(period.days) > 1:
        return report_views.period_report(state, period.days, period.name)
    known = state.reports.get(period.name)
    return report_views.day_report(state, period.name, known.version if known else 0)


def _facts(b: Bus, period: Period) -> Facts:
    collector = Collector(period.start, period.end)
    # A place on the log is the time of its turn in ms, or later where turns were crowded; what is
    # told late stands up to two days behind.
    before, until = period.start // 1000 - 1, (period.end + OWN_TIME_US) // 1000 + 60_000
    for events in replay.read_log(b.client, b.keys, f"{before}-0", str(until)):
        collector.add(events)
    return collector.facts(DEAREST)


def _texts(b: Bus, facts: Facts) -> dict[str, str]:
    """The first lines of the prompts of the tasks that are named."""
    tasks = [spent.task for spent in facts.dearest]
    replies = b.client.pipeline(("LINDEX", b.keys.task_index(task), 0) for task in tasks)
    places = {t: r.decode() for t, r in zip(tasks, replies, strict=True) if isinstance(r, bytes)}
    found = b.events_at(list(places.values()))
    return {
        task: first_line(found[place].data.text)
        for task, place in places.items()
        if place in found and found[place].type == "task.submitted"
    }


def _publish(b: Bus, state: State, day: str) -> None:
    """The issued report with its event's id while it holds, else the figures as they stand."""
    known = state.reports.get(day)
    body: dict[str, Any] = report_views.day_report(state, day)
    if known is not None and known.version and not known.late_at:
        issued = b.events_at([known.log_id])
        body = message(issued[known.log_id]) if issued else body
    heard = b.client.call("PUBLISH", b.keys.report_channel, msgspec.json.encode(body))
    out.note(f"published on {b.keys.report_channel}; {heard} subscribed")
