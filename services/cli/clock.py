"""policy clock: what the bus thinks of the server's clock, and an operator's word on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from projections import clock as fold
from projections.format import span
from projections.state import State
from projections.views import iso
from projections.windows import HOUR, HOURS_KEPT
from services.cli import options
from services.cli.limits import AsJson, Reason
from services.cli.terminal import note, say, say_json
from services.client.follow import Answers
from services.queries.findings import Look
from services.store.health import FactRow

app = typer.Typer(
    help="The server's clock: whether it stepped, and that it is right.",
    invoke_without_command=True,
)
WAY_OUT = "is the server's clock right now? then `asb policy clock confirm`"


@app.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the server's clock made a step that nobody has confirmed yet."""
    if context.invoked_subcommand is not None:
        return
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
    if as_json:
        say_json(view(state, now))
    else:
        say(said(state))
        if fold.doubted(state):
            note(f"hint: {WAY_OUT}")


@app.command()
def confirm(reason: Reason = "") -> None:
    """Say that the server's clock is right: what lies beyond every window is forgotten again.

    Do it when the clock is set right, not before: what is forgotten by a wrong clock counts in no
    limit any more when it is set right.
    """
    with options.opened() as bus:
        answers = Answers(bus)
        answers.expect(bus.send("clock.confirmed", {"reason": reason}), "the clock")
        refused = answers.refused(note)
        if not refused:
            say(f"confirmed: it is {iso(bus.now())} by the server's clock")
    if refused:
        raise typer.Exit(1)


def check(look: Look) -> Iterator[FactRow]:
    """The row of ``asb doctor``."""
    doubted = fold.doubted(look.state)
    yield ("clock", said(look.state), "warn" if doubted else "ok", WAY_OUT)


def said(state: State) -> str:
    """How things stand, as a sentence."""
    meta = state.meta
    if not fold.doubted(state):
        return "the server's made no large step, or it was confirmed"
    left = HOURS_KEPT * HOUR - (meta.passed - meta.large_step_passed)
    return (
        f"it stepped by {step_text(meta.large_step)}, to {iso(meta.large_step_at)}; no use is "
        f"forgotten before it is confirmed, or has gone on for {span(left)}"
    )


def step_text(by: int) -> str:
    """A step with its sign: ``-20 min``, ``+26 h``."""
    return f"{'-' if by < 0 else '+'}{span(abs(by))}"


def view(state: State, now: int) -> dict[str, Any]:
    """``asb policy clock --json``."""
    meta, doubted = state.meta, fold.doubted(state)
    return {
        "as_of": meta.log_id,
        "at": iso(now),
        "confirmed": not doubted,
        "step_us": meta.large_step if doubted else 0,
        "stepped_at": iso(meta.large_step_at) if doubted else "",
    }
