"""events, replay: the log itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from events.envelope import Event, known_types
from projections.format import count
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.cli.verify import verified
from services.client.bus import Bus
from services.queries.describe import describe
from services.queries.history import event_view
from services.queries.status import prompts, running_texts, status_view
from services.screens.status import status_screen
from services.screens.text import folded
from services.store import rebuild as replaying

LIMIT = 50
BLOCK_MS = 1000


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come.")] = False,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only events after this log id.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="So many: the first after --since, else the last; 0 for all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show the log: what happened, in order. Without --since the last 50 events."""
    types = set(type_ or [])
    if unknown := types - set(known_types()):
        raise typer.BadParameter(f"--type {unknown.pop()}: one of {', '.join(known_types())}")
    if since is not None:
        _check_id(since)
    with options.opened() as bus:
        cursor, shown = bus.last_id(), 0
        if not follow or since is not None or limit is not None:
            number = limit or (LIMIT if limit is None and since is None else sys.maxsize)
            for event in _past(bus, types, since, number, cursor):
                _show(event, as_json)
                shown += 1
        if follow:
            _follow(bus, cursor, types, as_json)
        elif not shown:
            note("no events" + (" of that kind" if types or since else " yet"))


def _past(bus: Bus, types: set[str], since: str | None, number: int, until: str) -> Iterator[Event]:
    if since is None:
        yield from reversed(_last(bus, types, number))
        return
    left = number
    for batch in bus.read(since, until):
        for event in bus.shown(batch):
            if not types or event.type in types:
                if left == 0:
                    return
                yield event
                left -= 1


def _last(bus: Bus, types: set[str], number: int) -> list[Event]:
    """The last ``number`` events of these types, newest first."""
    events: list[Event] = []
    for entries in bus.history.newest():
        shown = bus.shown(replaying.decoded(entries))
        events += [e for e in shown if not types or e.type in types]
        if len(events) >= number:
            break
    return events[:number]


def _follow(bus: Bus, cursor: str, types: set[str], as_json: bool) -> None:
    """Whoever is slow gets what was cut off the log meanwhile from the archive."""
    while True:
        wait: Any = ("XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", bus.keys.log, cursor)
        for entries in bus.history.entries(cursor) if bus.client.call(*wait) else ():
            cursor = entries[-1][0].decode()
            for event in bus.shown(replaying.decoded(entries)):
                if not types or event.type in types:
                    _show(event, as_json)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        say_json(event_view(event), pretty=False)
        return
    task = getattr(event.data, "task", "")
    words = "  ".join(x for x in (task, describe(event)) if x)
    head, columns = f"{event.log_id:<17} {event.type:<21}", width()
    if not columns or len(head) + cell_len(words) < columns:
        say(f"{head} {words}".rstrip())
        return
    say(head.rstrip())
    if words:
        say(folded(words, columns, "    "))


def _check_id(entry_id: str) -> None:
    if not re.fullmatch(r"\d{1,19}(-\d{1,19})?", entry_id):
        raise typer.BadParameter(f"{entry_id} is not a log id such as 1763793042123-0")


def replay(
    until: Annotated[
        str | None, typer.Option(help="Show the status screen as of this log id.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Fold the log from the start and compare.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Fold the log: the state as it was at any moment, or a proof that it is what it says.

    --verify folds it from the start, in turns of 1, 7 and 1000 events, and compares each result
    byte for byte with the state every service starts from (newest snapshot and tail), and with
    the views and reports as they stand in Redis. Then the audit, which shares no code with the
    folds, checks that no dispatch broke a limit and every hold was settled or released once.
    """
    if until is not None:
        _check_id(until)
    with options.opened() as bus:
        if verify:
            if not verified(bus, until, as_json):
                raise typer.Exit(1)
            return
        state = bus.state(until or "+")
        now = state.meta.at if until else bus.now()
        texts = prompts(bus, running_texts(state))
        if as_json:
            say_json(status_view(state, now, texts))
        else:
            say(status_screen(state, now, texts))
            note(f"as of {state.meta.log_id}, {count(state.meta.events, 'event')}")
