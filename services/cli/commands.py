"""The commands of ``asb`` as the parser sees them: each is loaded when it is called."""

from __future__ import annotations

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

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text())


def loaded(name: str) -> Command:
    """The command ``name`` with its options, from its module."""
    place = PLACES[name]
    found = getattr(import_module(f"services.cli.{place.module}"), place.name)
    root = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        root.add_typer(found, name=name, epilog=EVERYWHERE)
    else:
        root.command(name, epilog=EVERYWHERE)(found)
    return cast("Command", typer.main.get_group(root).commands[name])
