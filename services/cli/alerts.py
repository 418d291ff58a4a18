"""alerts: the levels and budgets that were reached, from the log."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from events.envelope import Event
from events.money import dollars
from events.policy import AlertRaised
from projections import throttle
from projections.views import iso, percent_text
from services.cli import bus, history, out
from services.cli.bus import Bus
from services.cli.words import SYMBOLS, limit_name
from services.runtime import replay
from services.throttle.service import ALERTS, is_alert, message

LIMIT = 50
COUNT = 1_000
WIRE_TYPES = frozenset(alert.type.encode() for alert in ALERTS)
BLOCK_MS = 1_000


def alerts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as alerts come.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many of the newest.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """List alerts: each level of a limit, and each alert budget, is said once per window.

    They stand on the log; subscribers of asb:alerts and the hooks of the configuration
    ([[alerts.hooks]] with a command or a url) get the same JSON.
    """
    with bus.opened() as b:
        cursor = b.last_id()
        found = _last(b, limit, cursor)
        for event in reversed(found):
            _say(event, as_json)
        if not found and not follow:
            out.note("no alerts")
        if follow:
            _follow(b, cursor, as_json)


def _last(b: Bus, most: int, until: str) -> list[Event]:
    """The newest alerts, the newest first."""
    found: list[Event] = []
    before = until
    while len(found) < most:
        entries = b.client.call("XREVRANGE", b.keys.log, before, "-", "COUNT", COUNT)
        raised = [entry for entry in entries if entry[1][1] in WIRE_TYPES]
        found += [event for event in replay.decoded(raised) if is_alert(event)]
        if len(entries) < COUNT:
            break
        before = f"({entries[-1][0].decode()}"
    return found[:most]


def _follow(b: Bus, cursor: str, as_json: bool) -> None:
    while True:
        reply: Any = b.client.call(
            "XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", b.keys.log, cursor
        )
        for entry in reply[0][1] if reply else ():
            cursor = entry[0].decode()
            for event in replay.decoded([entry]) if entry[1][1] in WIRE_TYPES else ():
                if is_alert(event):
                    _say(event, as_json)


def _say(event: Event, as_json: bool) -> None:
    if as_json:
        out.say_json({"at": iso(event.at), **message(event)}, pretty=False)
        return
    d = event.data
    if type(d) is not AlertRaised:
        out.say(f"{iso(event.at)}  {SYMBOLS[-1]} {event.type}: {history.describe(event)}")
        return
    used, most = (
        (dollars(d.usage), dollars(d.budget, 2))
        if d.unit == "money"
        else (f"{d.usage:,}", f"{d.budget:,}")
    )
    what = "alert budget" if d.kind == "budget" else d.level
    out.say(
        f"{iso(event.at)}  {SYMBOLS[throttle.LEVELS.index(d.level)]} {what:<12}  "
        f"{limit_name(d.unit, d.window, d.scope)}: {used} of {most} "
        f"({percent_text(d.usage, d.budget)})"
    )
