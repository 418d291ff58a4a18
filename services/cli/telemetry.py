"""telemetry: how agents that asb did not start tell it of their calls."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from services.cli import options
from services.cli.terminal import note, say
from services.runtime.errors import Refused
from services.worker.drivers.table import AGENTS
from services.worker.drivers.table import agent as agent_table

app = typer.Typer(
    help="Agents that asb did not start: `asb service telemetry` receives what they tell.",
    no_args_is_help=True,
)


@app.callback()
def telemetry() -> None:
    """What workers start is counted without this. Prompts and answers are never taken in."""


@app.command()
def env(
    agent: Annotated[str, typer.Argument(help=f"One of {', '.join(AGENTS)}.")],
) -> None:
    """Print what makes an agent send its telemetry to asb.

    In a shell: eval "$(asb telemetry env claude)", then start the agent as always.
    Codex reads no environment for that: of it lines for its config.toml are printed.
    """
    if agent not in AGENTS:
        raise typer.BadParameter(f"{agent} is none of {', '.join(AGENTS)}")
    port = options.settings().telemetry.port
    if not port:
        raise Refused("telemetry.port is 0: any port", hint="choose one: ASB_TELEMETRY_PORT=4318")
    overlay = agent_table(agent).telemetry(f"http://127.0.0.1:{port}")
    if overlay.arguments:
        note("for ~/.codex/config.toml, above its first [table]:")
        for key, _, value in (pair.partition("=") for pair in overlay.arguments[1::2]):
            say(f"{key} = {value}")
        return
    for name, value in overlay.environment.items():
        say(f"export {name}={shlex.quote(value)}")
