"""hooks, agent-hook, attach: agents in tmux, and what they say of themselves."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from services.cli import options
from services.cli.terminal import note, say
from services.runtime import agent_hook as receiving
from services.runtime.errors import ConfigError, Refused
from services.worker.drivers.tmux import PROGRAM
from services.worker.tmux import hooks, kept

app = typer.Typer(help="Hooks by which an agent in tmux says what it does.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """A worker that starts its agent itself has them without this."""


@app.command()
def install(
    worker: Annotated[str, typer.Argument(help="The worker whose agent it is.")],
    file: Annotated[
        Path | None,
        typer.Option(help="Into this settings file instead, beside what stands in it."),
    ] = None,
) -> None:
    """Write the hooks into a worker's own settings file.

    Yours stay as they are. Start the agent with that file: the command is printed. Without hooks a
    worker reads the agent's own files, which tell less: not which tool a permission is asked for.
    """
    settings = options.settings()
    folder = kept.Folder(settings.data_dir, worker)
    path = file or folder.settings
    try:
        added = hooks.install(path, folder.path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", hint="look at it; nothing was written") from error
    note(f"{path}: {'hooks written' if added else 'the hooks stood there already'}")
    if file is None:
        say(f"{PROGRAM} --settings {shlex.quote(str(path))}")


def agent_hook() -> None:
    """What stands in an agent's hook settings: it hands what it is told to the agent's worker.

    It reads JSON on standard input, says nothing and never fails. Outside of a worker's session in
    tmux it does nothing.
    """
    receiving.main()


def attach(
    worker: Annotated[str, typer.Argument(help="A worker with --driver tmux, on this host.")],
) -> None:
    """Look over an agent's shoulder: its tmux session, in this terminal. Ctrl-b d leaves it.

    What you type there is yours: it is counted as work that asb did not give out.
    """
    seat = kept.Folder(options.settings().data_dir, worker).read()
    if seat is None:
        raise Refused(
            f"no worker {worker} with an agent in tmux is known in this data folder",
            hint=f"asb worker {worker} --driver tmux",
        )
    where = ("-S", seat.socket) if seat.socket else ()
    try:
        attached = ("tmux", *where, "attach-session", "-t", f"={seat.session}")
        os.execvp("env", ["env", "-u", "TMUX", *attached])  # within tmux, too
    except OSError as error:
        raise Refused(f"tmux cannot be run: {error.strerror}", hint="install it") from error
