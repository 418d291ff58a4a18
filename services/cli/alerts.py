"""alerts: the levels and budgets that were reached, from the log."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from events.envelope import Event
from events.money import dollars
from events.policy import AlertRaised
from projections import budgets
from projections.format import SYMBOLS, limit_name
from projections.views import iso, percent_text
from services.cli import options
from services.cli.terminal import note, say, say_json
from services.client.bus import Bus
from services.queries.describe import describe
from services.store import rebuild
from services.throttle.projector import ALERTS, is_alert, message

LIMIT = 50
COUNT = 1_000
WIRE_TYPES = frozenset(alert.type.encode() for alert in ALERTS)
BLOCK_MS = 1_000


def alerts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as alerts come.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="So many of the newest; 0 for all.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """List alerts: each level of a limit, and each alert budget, is said once per window.

    They stand on the log; subscribers of asb:alerts and the hooks of the configuration
    ([[alerts.hooks]] with a command or a url) get the same JSON.
    """
    with options.opened() as bus:
        cursor = bus.last_id()
        newest = _last(bus, limit or sys.maxsize, cursor)
        for event in reversed(newest):
            _say(event, as_json)
        if not newest and not follow:
            note("no alerts")
        if follow:
            _follow(bus, cursor, as_json)


def _last(bus: Bus, number: int, until: str) -> list[Event]:
    """The newest alerts, the newest first."""
    alerts: list[Event] = []
    for entries in bus.history.newest(until):
        raised = [entry for entry in entries if entry[1][1] in WIRE_TYPES]
        alerts += [event for event in rebuild.decoded(raised) if is_alert(event)]
        if len(alerts) >= number:
            break
    return alerts[:number]


def _follow(bus: Bus, cursor: str, as_json: bool) -> None:
    while True:
        reply: Any = bus.client.call(
            "XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", bus.keys.log, cursor
        )
        for entry in reply[0][1] if reply else ():
            cursor = entry[0].decode()
            for event in rebuild.decoded([entry]) if entry[1][1] in WIRE_TYPES else ():
                if is_alert(event):
                    _say(event, as_json)


def _say(event: Event, as_json: bool) -> None:
    if as_json:
        say_json({"at": iso(event.at), **message(event)}, pretty=False)
        return
    payload = event.data
    if type(payload) is not AlertRaised:
        say(f"{iso(event.at)}  {SYMBOLS[-1]} {event.type}: {describe(event)}")
        return
    used, budget = (
        (dollars(payload.usage), dollars(payload.budget, 2))
        if payload.unit == "money"
        else (f"{payload.usage:,}", f"{payload.budget:,}")
    )
    what = "alert budget" if payload.kind == "budget" else payload.level
    say(
        f"{iso(event.at)}  {SYMBOLS[budgets.LEVELS.index(payload.level)]} {what:<12}  "
        f"{limit_name(payload.unit, payload.window, payload.scope)}: {used} of {budget} "
        f"({percent_text(payload.usage, payload.budget)})"
    )
