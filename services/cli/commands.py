"""The commands of ``asb``, and where each one lives: its module is loaded when it is called."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, Final, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

EVERYWHERE = (
    "Every command takes: --redis URL, --namespace NAME, --config FILE, --data-dir FOLDER, "
    "--log-format text|json."
)


class Place(NamedTuple):
    """Where a command lives: a function or, for a group of commands, a ``typer.Typer``."""

    module: str
    name: str
    summary: str


COMMANDS: Final[dict[str, dict[str, Place]]] = {
    "Run a bus": {
        "up": Place("up", "up", "Run a bus until Ctrl-C."),
        "demo": Place("demo", "demo", "See it at work, on a bus of its own."),
        "service": Place("up", "service", "Run some services alone."),
        "worker": Place("work", "worker", "Run a worker until Ctrl-C."),
        "pause": Place("work", "pause", "Give workers no new tasks."),
        "resume": Place("work", "resume", "Give paused workers tasks again."),
    },
    "Tasks": {
        "submit": Place("submit", "submit", "Submit tasks: arguments, a file, or lines."),
        "tasks": Place("tasks", "tasks", "List tasks, or say why they wait."),
        "task": Place("tasks", "task", "One task's whole history."),
        "cancel": Place("tasks", "cancel", "Cancel tasks."),
        "retry": Place("tasks", "retry", "Submit ended tasks again."),
        "manager": Place("manager", "manager", "The task manager's prompt."),
        "delegator": Place("delegator", "app", "Teach, check and ask the delegator."),
        "routes": Place("routes", "routes", "Where each kind of task goes."),
    },
    "See": {
        "status": Place("view", "status", "The bus on one screen."),
        "metrics": Place("view", "metrics", "Tokens and cost, in all and by worker."),
        "report": Place("reports", "report", "Tokens and cost of a day, week or month."),
        "throttle": Place("view", "throttle", "How far each budget is used."),
        "events": Place("log", "events", "What happened, in order."),
        "archive": Place("archive", "archive", "The log in files, with a hash chain."),
        "replay": Place("log", "replay", "The state at any moment, or its proof."),
        "doctor": Place("doctor", "doctor", "How things stand, and what to do."),
        "config": Place("doctor", "config", "Every setting, and where it came from."),
        "completion": Place("completion", "completion", "Commands and options, for your shell."),
    },
    "Budgets": {
        "limits": Place("limits", "app", "What may be used: show it, change it."),
        "policy": Place("policy", "app", "Limits, prices, saving, guard."),
        "alerts": Place("alerts", "alerts", "Levels reached, and budgets passed."),
        "prices": Place("prices", "prices", "What models cost."),
        "correct": Place("correct", "correct", "Put right what an attempt was charged."),
    },
    "Redis": {
        "redis": Place("redis_command", "redis", "Progress and messages, as agents use them."),
        "acl": Place("acl", "acl", "The ACL line of a foreign writer."),
        "deadletter": Place("deadletters", "deadletter", "Entries that were refused."),
    },
}
_PLACES: Final = {name: place for group in COMMANDS.values() for name, place in group.items()}

Command = TyperCommand | TyperGroup


class Commands(TyperGroup):
    """All commands by their names, listed in groups, each loaded when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: Any, cmd_name: str) -> Command | None:
        return loaded(cmd_name) if cmd_name in _PLACES else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Of a name that is no command the nearest ones are named."""
        if args[0] not in _PLACES:
            near = difflib.get_close_matches(args[0], _PLACES, n=3)
            more = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{more}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Names and summaries from the table: help needs no command."""
        width = max(map(len, _PLACES))
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), p.summary) for name, p in group.items()])


def loaded(name: str) -> Command:
    """The command ``name`` with its options, from its module."""
    place = _PLACES[name]
    found = getattr(import_module(f"services.cli.{place.module}"), place.name)
    root = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        root.add_typer(found, name=name, epilog=EVERYWHERE)
    else:
        root.command(name, epilog=EVERYWHERE)(found)
    return cast("Command", typer.main.get_group(root).commands[name])
