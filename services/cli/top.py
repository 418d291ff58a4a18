"""top: the fleet on one screen, now or at any moment of the log."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from services.cli import options
from services.cli.terminal import say, say_json, width
from services.queries.moment import HOW, moment
from services.queries.watching import FleetWatch, Scene, past
from services.screens import fleet

COLUMNS = 80  # where the output goes to a file


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, once.")] = False,
    at: Annotated[
        str | None, typer.Option(metavar="ID|TIME", help=f"The fleet as it was: {HOW}.")
    ] = None,
) -> None:
    """Watch the fleet: budgets, queue, workers, events; keys act, ? lists them.

    Any moment of the log: --at, and [ ] { } < > on the screen.
    """
    person = sys.stdout.isatty() and sys.stdin.isatty()
    if once or as_json or not person:
        with options.opened() as bus:
            scene = FleetWatch(bus).look() if at is None else past(bus, moment(at, bus.now()))
        _print(scene, as_json)
        return
    from services.top.app import run  # textual, for those who look at it

    run(options.settings(), at)


def _print(scene: Scene, as_json: bool) -> None:
    if as_json:
        say_json(scene)
        return
    for line in fleet.once(scene.overview, scene.events, width() or COLUMNS).splitlines():
        say(line)
