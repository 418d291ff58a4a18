"""The program ``asb``: options that hold everywhere, errors, exit codes.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from services.cli.arguments import check_texts, take_options
from services.cli.commands import Commands
from services.cli.table import VERSION
from services.cli.terminal import note, say
from services.runtime.errors import AsbError, CommandRefused

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"asb {VERSION}")
        raise typer.Exit


@app.callback()
def everywhere(
    redis: Annotated[
        str | None, typer.Option(help="Redis to use, instead of the embedded one.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="First part of every key: one bus each.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="The TOML file with the settings.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder of the embedded Redis.")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="What services and workers log: text, or json.")
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """These stand before or after the name of the command; `main` takes them out."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = take_options(arguments)
        check_texts(arguments)
        app(args=arguments, prog_name="asb")
    except AsbError as error:
        note(f"error: {error}")
        sys.exit(1)
    except CommandRefused as error:
        note(f"error: Redis refused a command: {error}\nhint: see `asb doctor`")
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read us has seen enough; nothing may be flushed into the closed pipe at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
