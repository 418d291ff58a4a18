"""completion: what a shell needs to complete command lines of asb."""

from __future__ import annotations

from typing import Annotated, cast

import typer
from typer.core import TyperGroup

from services.cli.arguments import OPTIONS
from services.cli.commands import Command, loaded
from services.cli.table import PLACES
from services.cli.terminal import say
from services.screens.completion import SHELLS, script


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help=f"One of {', '.join(SHELLS)}.")],
) -> None:
    """Print what makes SHELL complete commands and options; asb itself is not run for it.

    bash: eval "$(asb completion bash)"; zsh likewise; fish: asb completion fish | source
    """
    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell}: one of {', '.join(SHELLS)}")
    say(script(shell, _lines()))


def _lines() -> dict[str, list[str]]:
    """Command line so far → what may follow."""
    everywhere = [*OPTIONS, "--help"]
    names = list(PLACES)
    lines = {"": [*names, "--version", *everywhere]}
    for name in names:
        command = loaded(name)
        lines[name] = [*_options(command), *everywhere]
        if isinstance(command, TyperGroup):
            for below, inner in command.commands.items():
                lines[name].insert(0, below)
                lines[f"{name} {below}"] = [*_options(cast("Command", inner)), *everywhere]
    return lines


def _options(command: Command) -> list[str]:
    hidden = [p for p in command.params if getattr(p, "hidden", False)]
    return [o for p in command.params if p not in hidden for o in p.opts if o.startswith("--")]
