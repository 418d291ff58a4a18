"""How the command line chooses what does a worker's tasks: a command, or an agent's driver."""

from __future__ import annotations

import platform
from pathlib import Path, PurePath
from typing import Annotated

import anyio
import msgspec
import typer
from msgspec.structs import replace

from services.cli.typed import number
from services.runtime.settings import Settings
from services.worker import records
from services.worker.drivers.acp import AcpDriver
from services.worker.drivers.agent import PERMISSIONS, Agent, AgentDriver, Choice
from services.worker.drivers.command import CommandDriver
from services.worker.drivers.formats import FORMATS
from services.worker.drivers.table import AGENTS
from services.worker.drivers.table import agent as agent_table
from services.worker.drivers.tmux import PROGRAM, TmuxDriver
from services.worker.task import Driver, WorkerOptions
from services.worker.tmux import kept
from services.worker.tmux.agent_session import Residence

ACP, COMMAND, TMUX = "acp", "command", "tmux"
DRIVERS = (*AGENTS, TMUX, ACP, COMMAND)

DriverName = Annotated[
    str | None, typer.Option("--driver", help=f"How tasks are done: {', '.join(DRIVERS)}.")
]
Output = Annotated[
    str,
    typer.Option(
        "--format",
        help="What a command's stdout is: text, json (one object), jsonl; the last two tell usage.",
    ),
]
Permissions = Annotated[
    str | None,
    typer.Option(help="What an agent may do: read, edit or all; without it, what you set in it."),
]
Folder = Annotated[
    str | None, typer.Option("--cwd", help="Folder the agent works in; without it, this one.")
]
Worktree = Annotated[
    bool | None,
    typer.Option(
        "--worktree/--no-worktree",
        help="An agent does each task in a git worktree, kept while work is in it.",
    ),
]
Isolated = Annotated[
    bool,
    typer.Option("--isolated", help="The agent's settings are its own; a key in the environment."),
]
Silence = Annotated[
    float | None,
    typer.Option(
        "--silence",
        callback=number,
        min=1,
        help="Seconds without a sign of work that end an agent.",
    ),
]
Session = Annotated[
    str | None,
    typer.Option(help="With --driver tmux: the session its agent is in; else its own name's."),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="With --driver tmux: start a dead agent again, and go on."),
]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say. ``words``: a command, or further arguments for an agent."""

    driver: str | None = None
    words: tuple[str, ...] = ()
    output: str = "text"
    permissions: str | None = None
    cwd: str | None = None
    worktree: bool | None = None
    isolated: bool = False
    silence: float | None = None
    session: str | None = None
    restart: bool = False

    @property
    def name(self) -> str:
        return self.driver or COMMAND

    @property
    def is_agent(self) -> bool:
        return self.name in AGENTS or self.name == TMUX

    @property
    def _table(self) -> Agent:
        return agent_table(PROGRAM if self.name == TMUX else self.name)

    @property
    def _agent_within(self) -> Agent | None:
        """The agent whose program a command runs with the route's model in an argument: it does
        not know the names of the routes, so it gets its own of the same tier."""
        takes_model = any("{model}" in word for word in self.words)
        program = PurePath(self.words[0]).name if self.words else ""
        return agent_table(program) if takes_model and program in AGENTS else None

    def check(self, worker: str = "", capacity: int = 1) -> None:
        """Raises BadParameter for what does not go together; for one ``worker``, what is missing
        too."""
        if self.name not in DRIVERS:
            raise typer.BadParameter(
                f"--driver {self.name} is not known; one of {', '.join(DRIVERS)}"
            )
        if self.output not in FORMATS:
            raise typer.BadParameter(
                f"--format {self.output} is not known; one of {', '.join(FORMATS)}"
            )
        self._check_tmux(capacity)
        if self.name != COMMAND:
            if self.output != "text":
                raise typer.BadParameter(f"--format is for commands; {self.name} has its own")
            self._check_acp()
            return
        if worker and not self.words:
            raise typer.BadParameter(
                f"what it runs is missing: asb worker {worker} --driver claude, "
                f"or asb worker {worker} -- my-agent"
            )
        for option in ("permissions", "isolated", "silence", "cwd", "worktree"):
            if getattr(self, option):
                raise typer.BadParameter(
                    f"--{option} is for agents: --driver {' or '.join(AGENTS)}"
                )

    def _check_tmux(self, capacity: int) -> None:
        if self.name != TMUX and (self.session or self.restart):
            raise typer.BadParameter("--session and --restart are for --driver tmux")
        if self.name == TMUX and (self.isolated or self.silence):
            raise typer.BadParameter("--isolated and --silence are not for --driver tmux")
        if self.name == TMUX and capacity > 1:
            raise typer.BadParameter("an agent in tmux does one task at a time: --capacity 1")

    def _check_acp(self) -> None:
        if self.name == ACP and not self.words:
            raise typer.BadParameter("--driver acp needs the agent: --driver acp -- gemini --acp")
        if self.name == ACP and self.isolated:
            raise typer.BadParameter("--isolated is not for acp: set the agent's own variables")
        if self.name == ACP and self.permissions not in (None, *PERMISSIONS):
            raise typer.BadParameter(f"--permissions is one of {', '.join(PERMISSIONS)}")

    def made(self, settings: Settings, worker: str) -> Driver:
        """The driver for ``worker``."""
        if self.name == COMMAND:
            return CommandDriver(self.words, format=self.output)
        folder = settings.data_dir.expanduser() / "agents" / self.name / worker
        choice = Choice(
            permissions=self.permissions or "",
            cwd=self.cwd or "",
            isolated=folder if self.isolated else None,
            arguments=self.words,
            first_s=self.silence,
            silence_s=self.silence,
            records=records.path_in(settings.data_dir),
            worktree=settings.tasks.worktree if self.worktree is None else self.worktree,
        )
        if self.name == ACP:
            return AcpDriver(self.words, replace(choice, arguments=()))
        if self.name == TMUX:
            own = kept.Folder(settings.data_dir, worker)
            place = Residence(session=self.session or worker, folder=own, restart=self.restart)
            return TmuxDriver(self._table, choice, place)
        return AgentDriver(self._table, choice)

    def prepare(self, settings: Settings) -> None:
        """Whether it can run at all, before a worker is started for it. Raises ConfigError."""
        driver = self.made(settings, "worker")
        if isinstance(driver, TmuxDriver):
            driver.check()  # a session is started by its own worker
        else:
            anyio.run(driver.prepare)

    def worker(
        self,
        settings: Settings,
        name: str,
        *,
        agent: str | None = None,
        models: tuple[str, ...] = (),
        account: str | None = None,
    ) -> WorkerOptions:
        """The worker ``name``; what is not given comes from its agent's table."""
        known = WorkerOptions(
            name=name,
            driver=self.made(settings, name),
            agent=agent,
            models=models,
            account=account,
            lease_s=settings.tasks.lease_s,
            heartbeat_s=settings.tasks.heartbeat_s,
        )
        if not self.is_agent:
            table = self._agent_within
            if table is None or models:
                return known
            return replace(known, models=table.models, cheap=table.cheap, capable=table.capable)
        table = self._table
        return replace(
            known,
            agent=agent or table.name,
            models=models or table.models,
            cheap=table.cheap,
            capable=table.capable,
            # Workers of one agent on one machine share one login.
            account=account or f"{table.name}@{platform.node()}",
        )

    def arguments(self) -> tuple[str, ...]:
        """The same again, for the command line of a worker's own process."""
        options = [f"--driver={self.name}", f"--format={self.output}"]
        if self.permissions:
            options.append(f"--permissions={self.permissions}")
        if self.cwd:
            options.append(f"--cwd={Path(self.cwd).resolve()}")
        if self.worktree is not None:
            options.append("--worktree" if self.worktree else "--no-worktree")
        if self.isolated:
            options.append("--isolated")
        if self.silence:
            options.append(f"--silence={self.silence}")
        if self.session:
            options.append(f"--session={self.session}")
        if self.restart:
            options.append("--restart")
        return (*options, "--", *self.words)
