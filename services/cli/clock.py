"""policy clock: what the bus thinks of the server's clock, and an operator's word on it."""

from __future__ import annotations

import typer

from projections import clock as fold
from projections.views import iso
from services.cli import options
from services.cli.limits import AsJson, Reason
from services.cli.terminal import note, say, say_json
from services.client.follow import Answers
from services.queries import clock

app = typer.Typer(
    help="The server's clock: whether it stepped, and that it is right.",
    invoke_without_command=True,
)


@app.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the server's clock made a step that nobody has confirmed yet."""
    if context.invoked_subcommand is not None:
        return
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
    if as_json:
        say_json(clock.view(state, now))
    else:
        say(clock.said(state))
        if fold.doubted(state):
            note(f"hint: {clock.WAY_OUT}")


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
