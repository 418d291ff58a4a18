"""events, replay: the log itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from events.envelope import Event, known_types
from services.cli import bus, history, out, screens, view
from services.cli.bus import Bus
from services.cli.verify import verified
from services.cli.words import count
from services.runtime import replay as replaying

LIMIT = 50
BLOCK_MS = 1000
READ_COUNT = 1000


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come.")] = False,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only events after this log id.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="At most so many: the first after --since, else the last."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show the log: what happened, in order. Without --since the last 50 events."""
    types = set(type_ or [])
    if unknown := types - set(known_types()):
        raise typer.BadParameter(f"--type {unknown.pop()}: one of {', '.join(known_types())}")
    if since is not None:
        _check_id(since)
    with bus.opened() as b:
        cursor, shown = b.last_id(), 0
        if not follow or since is not None or limit:
            for event in _past(b, types, since, limit, cursor):
                _show(event, as_json)
                shown += 1
        if follow:
            _follow(b, cursor, types, as_json)
        elif not shown:
            out.note("no events" + (" of that kind" if types or since else " yet"))


def _past(
    b: Bus, types: set[str], since: str | None, limit: int | None, until: str
) -> Iterator[Event]:
    if since is None:
        yield from reversed(_last(b, types, LIMIT if limit is None else limit))
        return
    left = limit
    for found in replaying.read_log(b.client, b.keys, since, until):
        for event in found:
            if not types or event.type in types:
                if left == 0:
                    return
                yield event
                left = None if left is None else left - 1


def _last(b: Bus, types: set[str], most: int) -> list[Event]:
    """The last ``most`` events of these types, newest first."""
    found: list[Event] = []
    before = "+"
    while len(found) < most:
        entries = b.client.call("XREVRANGE", b.keys.log, before, "-", "COUNT", READ_COUNT)
        found += [e for e in replaying.decoded(entries) if not types or e.type in types]
        if len(entries) < READ_COUNT:
            break
        before = f"({entries[-1][0].decode()}"
    return found[:most]


def _follow(b: Bus, cursor: str, types: set[str], as_json: bool) -> None:
    while True:
        reply: Any = b.client.call(
            "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", b.keys.log, cursor
        )
        if reply:
            cursor = reply[0][1][-1][0].decode()
        for event in replaying.decoded(reply[0][1]) if reply else ():
            if not types or event.type in types:
                _show(event, as_json)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        out.say_json(history.event_view(event), pretty=False)
        return
    task = getattr(event.data, "task", "")
    words = "  ".join(x for x in (task, history.describe(event)) if x)
    head, most = f"{event.log_id:<17} {event.type:<21}", out.width()
    if not most or len(head) + cell_len(words) < most:
        out.say(f"{head} {words}".rstrip())
        return
    out.say(head.rstrip())
    if words:
        out.say(out.folded(words, most, "    "))


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
    with bus.opened() as b:
        if verify:
            if not verified(b, until, as_json):
                raise typer.Exit(1)
            return
        state = b.state(until or "+")
        now = state.meta.at if until else b.now()
        texts = view.prompts(b, screens.running_texts(state))
        if as_json:
            out.say_json(screens.status_view(state, now, texts))
        else:
            out.say(screens.status(state, now, texts))
            out.note(f"as of {state.meta.log_id}, {count(state.meta.events, 'event')}")
