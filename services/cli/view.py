"""status, metrics, throttle: the seed's screens, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from projections.state import State
from services.cli import bus, forecast, out, screens
from services.cli.bus import Bus
from services.cli.patience import catch_up, no_desk
from services.cli.words import count
from services.runtime.errors import AsbError, LogError, RedisUnsuitable
from services.runtime.heartbeat import beats, missing

WATCH_S = 2.0
CLEAR = "\x1b[H\x1b[2J\x1b[3J"

AsJson = Annotated[bool, typer.Option("--json", help="The same figures as JSON.")]
Watch = Annotated[
    float | None,
    typer.Option(
        min=0.1, metavar="[SECONDS]", help="Show it again and again, every 2 s unless you say."
    ),
]

Render = Callable[[State, int, dict[str, str]], Any]


def status(as_json: AsJson = False, watch: Watch = None) -> None:
    """Queue, totals, throttle and workers: the bus on one screen."""
    _show(as_json, watch, screens.status, screens.status_view)


def metrics(
    as_json: AsJson = False,
    watch: Watch = None,
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
            lambda state, now, _texts: forecast.text(state, now),
            lambda state, now, _texts: forecast.view(state, now),
        )
        return
    _show(
        as_json,
        watch,
        lambda state, _now, _texts: screens.metrics(state),
        lambda state, now, _texts: screens.metrics_view(state, now),
    )


def throttle(as_json: AsJson = False, watch: Watch = None) -> None:
    """How far each budget is used, and the throttle level of every worker."""
    _show(
        as_json,
        watch,
        lambda state, now, _texts: screens.throttle_screen(state, now),
        lambda state, now, _texts: screens.throttle_view(state, now),
    )


def prompts(b: Bus, places: dict[str, str]) -> dict[str, str]:
    """The prompts of tasks; ``places`` maps a task to the log id of its submission."""
    found = b.events_at(list(places.values()))
    return {task: found[place].data.text for task, place in places.items() if place in found}


def _show(as_json: bool, watch: float | None, text: Render, view: Render) -> None:
    screen = _Screen(as_json, text, view, watched=watch is not None)
    if watch is not None:
        try:
            _watch(watch, screen)
        except KeyboardInterrupt:
            out.note("")
        return
    with bus.opened() as b:
        state = b.state()
        screen.show(b, state)
        if said := no_desk(beats(b.client, b.keys)):
            out.note(said)


def _watch(seconds: float, screen: _Screen) -> None:
    """Again and again, until Ctrl-C. A Redis that was there and goes away is waited for."""
    seen = away = False
    while True:
        try:
            with bus.opened() as b:  # an embedded Redis may come back at another address
                state = b.state()
                while True:
                    screen.show(b, state)
                    seen, away = True, False
                    time.sleep(seconds)
                    catch_up(b, state)
        except AsbError as error:
            if not seen or isinstance(error, RedisUnsuitable | LogError):
                raise
            if not away:
                out.note(f"\n{str(error).splitlines()[0]}; waiting for it (Ctrl-C ends this)")
            away = True
            time.sleep(seconds)


class _Screen:
    """How a state is shown: once or again and again, as text or JSON."""

    def __init__(self, as_json: bool, text: Render, view: Render, *, watched: bool) -> None:
        self._as_json, self._text, self._view, self._watched = as_json, text, view, watched

    def show(self, b: Bus, state: State) -> None:
        now, texts = b.now(), prompts(b, screens.running_texts(state))
        if self._as_json:
            gone = list(missing(beats(b.client, b.keys)))
            figures = {**self._view(state, now, texts), "missing_services": gone}
            out.say_json(figures, pretty=not self._watched)
            return
        lines = self._text(state, now, texts).splitlines()
        person = sys.stdout.isatty()
        if self._watched and person:
            said = no_desk(beats(b.client, b.keys))
            lines = fitting([*([said, ""] if said else []), *lines], out.height())
            sys.stdout.write(CLEAR)
        columns = out.width()
        sys.stdout.write("\n".join(out.clip(line, columns) for line in lines))
        # On a watched terminal a last line end would scroll the first line away.
        sys.stdout.write("" if self._watched and person else "\n")
        if self._watched and not person:
            out.say()
        sys.stdout.flush()


def fitting(lines: list[str], height: int) -> list[str]:
    """As many lines as fit ``height``, the last of them saying how many do not."""
    if height <= 0 or len(lines) <= height:
        return lines
    shown = lines[: max(1, height - 1)]
    more = count(len(lines) - len(shown), "more line")
    return [*shown, f"… {more} (make the window taller, or --json)"]
