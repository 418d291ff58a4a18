"""The program ``asb``: options that hold everywhere, errors, exit codes.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from services.cli.arguments import check_texts, take_options
from services.cli.commands import Commands
from services.cli.terminal import note, prepare, say
from services.runtime import VERSION
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
    prepare()
    code = _run(list(sys.argv[1:] if argv is None else argv))
    sys.exit(_flushed(code))


def _run(arguments: list[str]) -> int:
    """The command's exit code. What it raises becomes one error, whatever it is."""
    try:
        arguments = take_options(arguments)
        check_texts(arguments)
        code = app(args=arguments, prog_name="asb", standalone_mode=False)
    except SystemExit as end:  # a pipe that was closed ends so in the parser
        closed = isinstance(end.__context__, BrokenPipeError)
        return end.code if isinstance(end.code, int) and not closed else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # whoever read us has seen enough
        return 0
    except Exception as error:
        if isinstance(used := getattr(error, "exit_code", None), int):
            _say_usage(error)
            return used
        if sys.flags.dev_mode:  # PYTHONDEVMODE=1
            raise
        if not (isinstance(error, OSError) and _flushed(0)):
            note(f"error: {_words(error)}")
        return 1
    return code if isinstance(code, int) else 0


def _say_usage(error: Any) -> None:
    """What the parser says of a line that it does not understand; it quotes from that line."""
    text = io.StringIO()
    error.show(file=text)
    note(text.getvalue().rstrip())


def _words(error: Exception) -> str:
    """What happened, and what to do next. Of several errors at once the first."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    if isinstance(error, AsbError):
        return str(error)
    if isinstance(error, CommandRefused):
        return f"Redis refused a command: {error}\nhint: see `asb doctor`"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}\nhint: PYTHONDEVMODE=1 before the command shows where"
    what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")
    return (
        f"asb itself failed ({what})\n"
        "hint: PYTHONDEVMODE=1 before the same command shows where; please report that"
    )


def _flushed(code: int) -> int:
    """``code``, once all data is out; 1 where it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Nothing may be flushed into it when the process ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code
        note(
            f"error: cannot write to standard output: {error.strerror}\nhint: is it closed or full?"
        )
        return 1
    return code


if __name__ == "__main__":
    main()
