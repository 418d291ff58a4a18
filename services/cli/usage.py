"""usage: put right what attempts used, from what their agents wrote down."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec.structs import asdict

from services.cli import options
from services.cli.limits import AsJson
from services.cli.terminal import note, say, say_json
from services.client.follow import Answers
from services.client.reconcile import HEALED, Reconciliation, heal, reconciliations
from services.worker import records

app = typer.Typer(help="What attempts used: put right what was missed.", no_args_is_help=True)


@app.callback()
def usage() -> None:
    """What attempts used, as their agents' transcripts say."""


@app.command()
def reconcile(
    check: Annotated[bool, typer.Option("--check", help="Change nothing, only say.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also what workers themselves told, to compare.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold transcripts against charges, and heal what was missed.

    An attempt whose worker was killed was charged by estimate. Its agent's transcript, on the
    machine where it ran, says what it was: that takes the estimate's place. What a worker itself
    told stands (--all says how far the transcript is from it). Run again it changes nothing.
    """
    with options.opened() as bus:
        recorded = records.read(records.path_in(bus.settings.data_dir))
        known = reconciliations(bus.state(), recorded, every=every)
        answers = Answers(bus)
        for entry in known if not check else ():
            if entry.outcome == HEALED:
                answers.expect(heal(bus, entry), entry.task)
        refused = answers.refused(note)
    if as_json:
        say_json([asdict(entry) for entry in known])
    else:
        for entry in known:
            say(_words(entry, check=check))
        if not known:
            say("nothing to heal: the worker of every attempt recorded here told what it used")
    if refused or (check and any(entry.outcome == HEALED for entry in known)):
        raise typer.Exit(1)


def _words(entry: Reconciliation, *, check: bool) -> str:
    words = f"{entry.task} attempt {entry.attempt} ({entry.agent}): "
    if entry.tokens is None:
        return words + entry.outcome
    outcome = "to be healed" if check and entry.outcome == HEALED else entry.outcome
    return f"{words}{outcome}; transcript {entry.tokens:,} tokens, charged {entry.charged:,}" + (
        f" of which {entry.estimated:,} estimated" if entry.estimated else ""
    )
