"""report: what was spent and done in a day, a week or a month."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from projections import report_views
from projections.state import State
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.client.bus import Bus
from services.queries.figures import savings
from services.queries.notices import notices
from services.queries.reports import (
    period_of,
    report_facts,
    report_figures,
    report_standing,
    report_texts,
)
from services.reports.projector import message
from services.screens.report import report_screen
from services.screens.status import savings_line


def report(
    date_: Annotated[
        str | None, typer.Option("--date", help="A day: 2026-11-22, today or yesterday.")
    ] = None,
    week: Annotated[
        str | None,
        typer.Option(metavar="[WEEK]", help="A week: this, last or 2026-W47; Monday begins it."),
    ] = None,
    month: Annotated[
        str | None, typer.Option(metavar="[MONTH]", help="A month: this, last or 2026-11.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
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
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
        period = period_of(state, now, date_, week, month)
        cells = report_views.merged(state.days[day] for day in period.days if day in state.days)
        figures = report_figures(state, period)
        facts = report_facts(bus, period)
        texts = report_texts(bus, facts)
        if publish:
            _publish(bus, state, period.name)
        if as_json:
            view = {**figures, "facts": msgspec.to_builtins(facts), "as_of": state.meta.log_id}
            view["savings"] = savings(state, cells)
            say_json(view)
            return
        head = f"{period.whole} REPORT {period.name} ({report_standing(state, period, now)})"
        noticed = notices(state, cells)
        saved = savings_line(state, cells)
        say(report_screen(head, noticed, figures, facts, texts, saved, width()))


# -- what is said --------------------------------------------------------------------------------


def _publish(bus: Bus, state: State, day: str) -> None:
    """The issued report with its event's id while it holds, else the figures as they stand."""
    known = state.reports.get(day)
    body: dict[str, Any] = report_views.day_report(state, day)
    if known is not None and known.version and not known.late_at:
        issued = bus.events_at([known.log_id])
        body = message(issued[known.log_id]) if issued else body
    heard = bus.client.call("PUBLISH", bus.keys.report_channel, msgspec.json.encode(body))
    note(f"published on {bus.keys.report_channel}; {heard} subscribed")
