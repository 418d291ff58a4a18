"""The commands of ``asb`` as the parser sees them: each is loaded when it is called."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from services.cli.table import COMMANDS, EVERYWHERE, PLACES, help_text

__all__ = ["COMMANDS", "Commands", "loaded"]

Command = TyperCommand | TyperGroup


class Commands(TyperGroup):
    """All commands by their names, listed in groups, each loaded when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(PLACES)

    def get_command(self, ctx: Any, cmd_name: str) -> Command | None:
        return loaded(cmd_name) if cmd_name in PLACES else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Of a name that is no command the nearest ones are named."""
        if args[0] not in PLACES:
            near = difflib.get_close_matches(args[0], PLACES, n=3)
            more = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{more}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text())


def loaded(name: str) -> Command:
    """The command ``name`` with its options, from its module."""
    place = PLACES[name]
    command = getattr(import_module(f"services.cli.{place.module}"), place.name)
    root = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(command, typer.Typer):
        root.add_typer(command, name=name, epilog=EVERYWHERE)
    else:
        root.command(name, epilog=EVERYWHERE)(command)
    return cast("Command", typer.main.get_group(root).commands[name])
