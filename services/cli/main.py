"""The program ``asb``: options that hold everywhere, errors, exit codes.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from typing import Annotated

import typer

from services.cli import (
    acl,
    alerts,
    correct,
    deadletters,
    delegator,
    demo,
    doctor,
    limits,
    log,
    manager,
    options,
    prices,
    redis_command,
    reports,
    routes,
    submit,
    tasks,
    up,
    view,
    work,
)
from services.cli.terminal import note, say
from services.runtime.errors import AsbError
from services.store.client import CommandRefused

EVERYWHERE = "Every command takes: --redis URL, --namespace NAME, --config FILE, --data-dir FOLDER."

app = typer.Typer(
    help="The bus for a fleet of AI agents: tasks go in, agents do them, budgets hold.",
    epilog="Begin with: asb demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        with contextlib.suppress(PackageNotFoundError):
            say(f"asb {metadata.version('agent-stream-bus')}")
            raise typer.Exit
        say("asb, run from its sources")
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
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """These stand before or after the name of the command; `main` takes them out."""


COMMANDS = {
    "Run a bus": {
        "up": up.up,
        "demo": demo.demo,
        "service": up.service,
        "worker": work.worker,
        "pause": work.pause,
        "resume": work.resume,
    },
    "Tasks": {
        "submit": submit.submit,
        "tasks": tasks.tasks,
        "task": tasks.task,
        "cancel": tasks.cancel,
        "retry": tasks.retry,
        "manager": manager.manager,
    },
    "See": {
        "status": view.status,
        "metrics": view.metrics,
        "report": reports.report,
        "throttle": view.throttle,
        "routes": routes.routes,
        "deadletter": deadletters.deadletter,
        "redis": redis_command.redis,
        "events": log.events,
        "replay": log.replay,
        "acl": acl.acl,
        "doctor": doctor.doctor,
        "config": doctor.config,
    },
}
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel, epilog=EVERYWHERE)(command)
GROUPS = {"limits": limits.app, "policy": limits.policy_app}
app.command("alerts", rich_help_panel="Budgets", epilog=EVERYWHERE)(alerts.alerts)
app.command("correct", rich_help_panel="Budgets", epilog=EVERYWHERE)(correct.correct)
app.command("prices", rich_help_panel="Budgets", epilog=EVERYWHERE)(prices.prices)
for name, group in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel="Budgets", epilog=EVERYWHERE)
app.add_typer(delegator.app, name="delegator", rich_help_panel="Tasks", epilog=EVERYWHERE)


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


def take_options(arguments: list[str]) -> list[str]:
    """Move the options that hold everywhere into ``bus.given``, wherever they stand before ``--``.

    ``--watch`` may stand without its seconds, which the parser does not know: they are put in.
    """
    options.given.clear()
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return [*rest, argument, *waiting]
        name, equals, value = argument.partition("=")
        if name in options.OPTIONS:
            found = value if equals else next(waiting, None)
            if found is None:
                note(f"error: {name} needs a value")
                sys.exit(2)
            options.given[options.OPTIONS[name]] = found
        else:
            rest.append(argument)
    return _with_seconds(rest)


def check_texts(arguments: list[str]) -> None:
    """A task's text that begins like an option is none: say where it goes. Ends with 2."""
    before = ""
    for argument in arguments if arguments[:1] == ["submit"] else ():
        if argument == "--":
            return
        is_text = argument.startswith("-") and " " in argument.partition("=")[0]
        if is_text and not before.startswith("-"):
            note(
                f"error: {argument[:40]!r} looks like an option\n"
                "hint: texts that begin with '-' go behind --: asb submit -- '- [ ] do it'"
            )
            sys.exit(2)
        before = argument


def _with_seconds(arguments: list[str]) -> list[str]:
    if "--watch" in arguments:
        place = arguments.index("--watch") + 1
        following = arguments[place] if place < len(arguments) else ""
        if not following.replace(".", "", 1).isdecimal():
            arguments.insert(place, str(view.WATCH_S))
    return arguments


if __name__ == "__main__":
    main()
