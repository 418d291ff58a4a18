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
from services.runtime import replay

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
    with bus.opened() as b:
        state = b.state()
        clear = watch is not None and sys.stdout.isatty()
        _once(b, state, as_json, text, view, clear=clear, stream=watch is not None)
        while watch is not None:
            time.sleep(watch)
            for events in replay.read_log(b.client, b.keys, state.meta.log_id):
                for event in events:
                    state.apply(event)
            _once(b, state, as_json, text, view, clear=clear, stream=True)


def _once(
    b: Bus, state: State, as_json: bool, text: Render, view: Render, *, clear: bool, stream: bool
) -> None:
    now, texts = b.now(), prompts(b, screens.running_texts(state))
    if as_json:
        out.say_json(view(state, now, texts), pretty=not stream)
        return
    screen = text(state, now, texts)
    if clear:
        sys.stdout.write(CLEAR)
    columns = out.width()
    out.say("\n".join(out.clip(line, columns) for line in screen.splitlines()))
    if stream and not sys.stdout.isatty():
        out.say()
    sys.stdout.flush()
