"""status, metrics, throttle: the seed's screens, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer

from projections.format import count
from projections.state import State
from services.cli import options
from services.cli.terminal import height, note, say, say_json, width
from services.cli.typed import number
from services.client.bus import Bus
from services.queries.buses import bus_rows
from services.queries.forecast import forecast_view
from services.queries.missing import missing_names
from services.queries.stalled import catch_up, no_engine
from services.queries.status import metrics_view, prompts, running_texts, status_view, throttle_view
from services.runtime.errors import AsbError, LogError, RedisUnsuitable
from services.screens.buses import buses_text
from services.screens.forecast import forecast_text
from services.screens.status import Shown, metrics_screen, status_screen, throttle_screen
from services.screens.text import clip
from services.store.heartbeat import beats

CLEAR = "\x1b[H\x1b[2J\x1b[3J"

AsJson = Annotated[bool, typer.Option("--json", help="The same figures as JSON.")]
Watch = Annotated[
    float | None,
    typer.Option(
        callback=number,
        min=0.1,
        max=86_400,
        metavar="[SECONDS]",
        help="Show it again and again, every 2 s unless you say.",
    ),
]

Everyone = Annotated[bool, typer.Option("--all", help="Workers that left or were lost as well.")]

Render = Callable[[State, int, dict[str, str]], Any]


def status(
    as_json: AsJson = False,
    watch: Watch = None,
    everyone: Everyone = False,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="A line for each bus of this server.")
    ] = False,
) -> None:
    """Queue, totals, throttle and workers: the bus on one screen."""
    if all_namespaces:
        if watch is not None or everyone:
            raise typer.BadParameter("--all-namespaces goes with --json only")
        _every_bus(as_json)
        return
    shown = Shown(everyone)
    _show(
        as_json,
        watch,
        lambda state, now, texts: status_screen(state, now, texts, shown),
        status_view,
    )


def metrics(
    as_json: AsJson = False,
    watch: Watch = None,
    everyone: Everyone = False,
    ahead: Annotated[
        bool, typer.Option("--forecast", help="Where it goes at the present rate.")
    ] = False,
) -> None:
    """Tokens and cost: totals, averages, per worker, and the measured savings.

    --forecast: tokens and money per hour now, when each limit is reached, this day and month.
    """
    if ahead:
        _show(
            as_json,
            watch,
            lambda state, now, _texts: forecast_text(state, now),
            lambda state, now, _texts: forecast_view(state, now),
        )
        return
    _show(
        as_json,
        watch,
        lambda state, _now, _texts: metrics_screen(state, Shown(everyone)),
        lambda state, now, _texts: metrics_view(state, now),
    )


def throttle(as_json: AsJson = False, watch: Watch = None, everyone: Everyone = False) -> None:
    """How far each budget is used, and the throttle level of every worker."""
    _show(
        as_json,
        watch,
        lambda state, now, _texts: throttle_screen(state, now, Shown(everyone)),
        lambda state, now, _texts: throttle_view(state, now),
    )


def _every_bus(as_json: bool) -> None:
    with options.opened() as bus:
        rows = list(bus_rows(bus))
    if as_json:
        say_json([msgspec.to_builtins(row) for row in rows])
    elif rows:
        say(buses_text(rows, width()))
    else:
        note("no bus has begun on this server")


def _show(as_json: bool, watch: float | None, text: Render, view: Render) -> None:
    screen = _Screen(as_json, text, view, watched=watch is not None)
    if watch is not None:
        try:
            _watch(watch, screen)
        except KeyboardInterrupt:
            note("")
        return
    with options.opened() as bus:
        state = bus.state()
        screen.show(bus, state)
        if said := no_engine(beats(bus.client, bus.keys)):
            note(said)


def _watch(seconds: float, screen: _Screen) -> None:
    """Again and again, until Ctrl-C. A Redis that was there and goes away is waited for."""
    seen = away = False
    while True:
        try:
            with options.opened() as bus:  # an embedded Redis may come back at another address
                state = bus.state()
                while True:
                    screen.show(bus, state)
                    seen, away = True, False
                    time.sleep(seconds)
                    catch_up(bus, state)
        except AsbError as error:
            if not seen or isinstance(error, RedisUnsuitable | LogError):
                raise
            if not away:
                note(f"\n{str(error).splitlines()[0]}; waiting for it (Ctrl-C ends this)")
            away = True
            time.sleep(seconds)


class _Screen:
    """How a state is shown: once or again and again, as text or JSON."""

    def __init__(self, as_json: bool, text: Render, view: Render, *, watched: bool) -> None:
        self._as_json, self._text, self._view, self._watched = as_json, text, view, watched

    def show(self, bus: Bus, state: State) -> None:
        now, texts = bus.now(), prompts(bus, running_texts(state))
        if self._as_json:
            gone = missing_names(beats(bus.client, bus.keys))
            figures = {**self._view(state, now, texts), "missing_services": gone}
            say_json(figures, pretty=not self._watched)
            return
        lines = self._text(state, now, texts).splitlines()
        person = sys.stdout.isatty()
        if self._watched and person:
            said = no_engine(beats(bus.client, bus.keys))
            lines = fitting([*([said, ""] if said else []), *lines], height())
            sys.stdout.write(CLEAR)
        columns = width()
        sys.stdout.write("\n".join(clip(line, columns) for line in lines))
        # On a watched terminal a last line end would scroll the first line away.
        sys.stdout.write("" if self._watched and person else "\n")
        if self._watched and not person:
            say()
        sys.stdout.flush()


def fitting(lines: list[str], height: int) -> list[str]:
    """As many lines as fit ``height``, the last of them saying how many do not."""
    if height <= 0 or len(lines) <= height:
        return lines
    shown = lines[: max(1, height - 1)]
    more = count(len(lines) - len(shown), "more line")
    return [*shown, f"… {more} (make the window taller, or --json)"]
