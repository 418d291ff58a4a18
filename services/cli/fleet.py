"""fleet: a bus with workers of several agents, as a file names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from services.cli import options
from services.cli.drivers import Chosen
from services.cli.up import run_up
from services.running.children import WorkerSpec
from services.runtime.errors import ConfigError

app = typer.Typer(help="Workers of several agents, as a file names them.", no_args_is_help=True)
EXAMPLE = """\
[[workers]]
driver = "claude"        # or codex, gemini, or command = ["my-agent", "--flag"]
count = 2                # claude1, claude2; name = "…" gives another beginning
permissions = "edit"     # and cwd, worktree, isolated, capacity, account, models, arguments, …
"""


class Hands(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Some workers alike. ``command``: what they run, where no agent's driver is named."""

    driver: str | None = None
    name: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    capacity: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    format: str = "text"
    permissions: str | None = None
    cwd: str | None = None
    worktree: bool | None = None
    isolated: bool = False
    silence: float | None = None
    session: str | None = None
    restart: bool = False
    agent: str | None = None
    models: tuple[str, ...] = ()
    account: str | None = None

    @property
    def chosen(self) -> Chosen:
        """What does their tasks."""
        return Chosen(
            driver=self.driver,
            words=self.command or self.arguments,
            output=self.format,
            permissions=self.permissions,
            cwd=self.cwd,
            worktree=self.worktree,
            isolated=self.isolated,
            silence=self.silence,
            session=self.session,
            restart=self.restart,
        )

    def names(self) -> list[str]:
        """``claude1, claude2``; a single one that was named has just that name."""
        begin = self.name or self.chosen.name
        if self.count == 1 and self.name:
            return [self.name]
        return [f"{begin}{n}" for n in range(1, self.count + 1)]

    def specs(self) -> list[WorkerSpec]:
        """Their processes."""
        given = [("agent", self.agent), ("account", self.account)]
        words = [f"--capacity={self.capacity}"]
        words += [f"--{name}={value}" for name, value in given if value]
        words += [f"--model={model}" for model in self.models]
        arguments = (*words, *self.chosen.arguments())
        return [WorkerSpec(name, arguments) for name in self.names()]


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    workers: Annotated[tuple[Hands, ...], msgspec.Meta(min_length=1)]


def read(path: Path) -> Fleet:
    """The fleet that a file names. Raises ConfigError, naming what is wrong and where."""
    try:
        fleet = msgspec.toml.decode(path.read_bytes(), type=Fleet)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint=f"it looks like this:\n{EXAMPLE}"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", hint=f"it looks like this:\n{EXAMPLE}") from error
    twice = [
        name for name, n in Counter(n for h in fleet.workers for n in h.names()).items() if n > 1
    ]
    if twice:
        raise ConfigError(
            f"{path}: two workers are called {', '.join(twice)}",
            hint="give each [[workers]] a name of its own",
        )
    for hands in fleet.workers:
        if hands.command and hands.chosen.is_agent:
            raise ConfigError(
                f"{path}: {hands.driver} is an agent with a driver, so command has no place",
                hint="what is added to its arguments is called arguments",
            )
        if not hands.command and not hands.chosen.is_agent:
            raise ConfigError(
                f"{path}: a [[workers]] names neither an agent's driver nor a command",
                hint=f"it looks like this:\n{EXAMPLE}",
            )
    return fleet


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="The TOML file that names the workers.")],
    port: Annotated[int | None, typer.Option(help="Port of the embedded Redis.")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Program of the embedded Redis: redis-server or valkey-server."),
    ] = None,
) -> None:
    """Run a bus until Ctrl-C with the workers that a file names.

    A section [[workers]] names a driver or a command, how many (count), and what `asb worker`
    takes: permissions, cwd, worktree, isolated, capacity, account, models, silence, session,
    restart, arguments. Where a bus runs already it joins in.
    """
    fleet = read(file)
    settings = options.settings(**{"embedded.port": port, "embedded.server": server})
    for hands in fleet.workers:
        hands.chosen.check(capacity=hands.capacity)
        hands.chosen.prepare(settings)
    options.logs_to_stderr()
    specs = [spec for hands in fleet.workers for spec in hands.specs()]
    run_up(settings, lambda _taken: specs, {"--port": port, "--server": server})
