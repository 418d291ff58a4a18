"""metrics --forecast: where it goes at the present rate. PURE."""

from __future__ import annotations

from events.money import dollars
from projections import forecast, views
from projections.forecast import Reach
from projections.format import amount_text, count, limit_name, limit_text, span
from projections.state import State
from services.queries.forecast import MONTH_DAYS
from services.screens.status import RULE, savings_line
from services.screens.text import table


def forecast_text(state: State, now: int) -> str:
    """The screen of ``asb metrics --forecast``."""
    rate = forecast.rate(state, "global", now)
    lines = [
        "FORECAST",
        RULE,
        f"Burn rate (of the last {rate.minutes or 60} minutes):",
        f"  Tokens/hour:  {rate.tokens:,}",
        f"  Cost/hour:    {dollars(rate.nanos)}",
        f"  Tasks/hour:   {rate.tasks:,}",
        "",
        "At this rate:",
    ]
    for window in ("day", "month"):
        p = forecast.projection(state, window, now)
        lines.append(
            f"  This {window}:{' ' * (6 - len(window))}  {p.tokens:,} tokens, "
            f"{dollars(p.nanos, 2)}, {count(p.tasks, 'task')}"
        )
    lines += ["", "Limits at this rate:", *_limit_lines(state, now), ""]
    lines += [savings_line(state), "", *_error_lines(state), *_seed_lines(state)]
    return "\n".join(lines)


def _limit_lines(state: State, now: int) -> list[str]:
    reaches = forecast.reaches(state, now)
    if not reaches:
        return ["  no limits"]
    reaches.sort(key=lambda r: (not r.before_reset, r.at or 2**63, r.scope, r.unit, r.window))
    rows = [
        (
            limit_name(r.unit, r.window, r.scope),
            f"{amount_text(r.unit, r.used + r.held)} of {limit_text(r.unit, r.limit)}",
            _when(r, now),
        )
        for r in reaches[:SHOWN]
    ]
    more = len(reaches) - SHOWN
    lines = ["  " + line for line in table(("LIMIT", "NOW", "REACHED"), rows).splitlines()]
    return [*lines, f"  and {more} more (--json)"] if more > 0 else lines


def _when(r: Reach, now: int) -> str:
    if not r.at:
        return f"never: {r.why}"
    if r.at <= now:
        return "reached"
    if r.before_reset:
        end = f", {span(r.resets_at - r.at)} before its reset" if r.resets_at else ""
        return f"in {span(r.at - now)}{end}"
    return f"resets first, in {span(r.resets_at - now)}"


def _error_lines(state: State) -> list[str]:
    learnt = [e for e in forecast.errors(state) if e.samples]
    if not learnt:
        return []
    lines = ["Estimates (held against used):"]
    lines += [
        f"  {e.kind} on {e.model}: {count(e.samples, 'attempt')}, off by {e.percent} %, "
        f"{e.overruns:,} used more than they held"
        for e in learnt[:SHOWN]
    ]
    return [*lines, ""]


def _seed_lines(state: State) -> list[str]:
    """The seed's capacity and projection tables, as prices and limits give them."""
    works = forecast.capacity(state)
    if not works:
        return ["Capacity: the price book names neither haiku nor sonnet"]
    rows = [
        (
            f"{w.name}, {w.tokens:,} tokens on {w.model}",
            f"~{dollars(w.nanos)}/task",
            f"~{w.hourly:,} tasks/hour" if w.hourly else "no limit on tokens/hour",
        )
        for w in works
    ]
    lines = ["Capacity of an hour:"]
    lines += ["  " + line for line in table(("WORK", "COST", "ADMITTED"), rows).splitlines()]
    day = forecast.scenario(state)
    if day is not None:
        saved = views.percent_text(day.uniform_nanos - day.nanos, day.uniform_nanos)
        lines += [
            "A day of 100 mixed tasks (40 light, 40 medium, 20 heavy):",
            f"  ~{dollars(day.nanos, 2)}/day, {dollars(MONTH_DAYS * day.nanos, 2)}/month; "
            f"{dollars(day.uniform_nanos, 2)} with everything on {forecast.DEAR} ({saved} saved)",
            f"  a token on {forecast.CHEAP} costs {day.cheaper_percent} % less than on "
            f"{forecast.DEAR}:",
            "  prices count, not the rule of thumb of 80 %",
        ]
    return lines


SHOWN = 12  # limits on the screen; --json has all
