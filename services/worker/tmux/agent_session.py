"""An agent's session in tmux: found or started, followed, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from services.runtime.errors import ConfigError
from services.worker.drivers.agent import (
    Agent,
    Choice,
    WorkFolder,
    check_choice,
    check_installed,
    overlay_of,
)
from services.worker.identity import runs
from services.worker.task import RetryableError
from services.worker.telemetry import WorkerTelemetry
from services.worker.tmux import agents, hooks, kept, server
from services.worker.tmux.agents import AgentInPane
from services.worker.tmux.claim import Claim
from services.worker.tmux.meter import SessionMeter
from services.worker.tmux.state import UNKNOWN

log = logging.getLogger("asb.worker")

START_S = 30.0  # how long an agent has until it says what it does
FIND_S = 0.1  # how often it is looked for
_RECEIVER = re.compile(r"http://127\.0\.0\.1:(\d{1,5})/([\w-]+)")


class Residence(msgspec.Struct, frozen=True, kw_only=True):
    """Where the agent is: the ``session`` of tmux, the worker's ``folder`` of ours. ``restart``: a
    dead agent is started again, with its conversation."""

    session: str
    folder: kept.Folder
    restart: bool = False


class AgentSession:
    """The session of one worker's agent. ``agent``: None before it was met; ``seat``: what is
    written down of it."""

    def __init__(self, table: Agent, choice: Choice, place: Residence) -> None:
        self.table, self.place, self._choice = table, place, choice
        self.seat = kept.Seat(place.session)
        self.agent: AgentInPane | None = None
        self.work = WorkFolder(choice)
        self.claim = Claim(place.folder.path, place.session)
        self.meter = SessionMeter()
        self._pane: server.Pane | None = None
        self._starting = asyncio.Lock()
        self._cwd = choice.cwd  # where the agent is, or will be started

    @property
    def alive(self) -> bool:
        return self.agent is not None and self.agent.alive

    def check(self) -> None:
        """Raises ConfigError for what cannot work, before a worker is started."""
        server.check_session(self.place.session)
        check_installed("tmux", "tmux", "install tmux ≥ 3.2")
        check_choice(self.table, self._choice)
        self.work.check()

    @contextlib.asynccontextmanager
    async def metered(self) -> AsyncGenerator[None]:
        """Its agent's telemetry is received while the block runs, where the worker before us had it
        sent: the agent of a session lives on."""
        before = self.place.folder.read()
        address = _RECEIVER.fullmatch(before.receiver if before is not None else "")
        port, token = address.groups() if address is not None else ("0", secrets.token_urlsafe(18))
        async with WorkerTelemetry(int(port)).serving(self.meter, token):
            yield

    async def open(self) -> None:
        """Find the agent in its session, or start one. Raises ConfigError."""
        self.check()
        try:
            await self._open()
        except BaseException:
            self.claim.release()
            raise

    async def _open(self) -> None:
        folder, session = self.place.folder, self.place.session
        try:
            await self.claim.check()
            folder.make()
            before = folder.read()
            pane = await server.pane_of(session)
            if pane is None or pane.dead:
                resumes = before is not None and self.place.restart
                pane = await self._start(before if resumes else None)
            elif self.work.trees is not None and not await server.started_by_us(pane):
                raise ConfigError(
                    f"the agent in tmux session {session} was started by somebody else, and stays "
                    "in the folder that it was started in: no worktree",
                    hint="name a session that is not there, and the worker starts one itself",
                )
            await self._meet(pane, before)
            if self.seat.attempt is None:
                folder.hold(False)  # of an attempt that is nobody's any more
            await self._leave_worktree(pane)
        except RetryableError as error:
            raise ConfigError(str(error), hint=f"tmux attach -t {session} shows why") from error
        except server.NoServer as error:
            raise ConfigError(f"tmux: {error}", hint="is tmux ≥ 3.2 installed?") from error
        except OSError as error:
            where = error.filename or folder.path
            raise ConfigError(f"{where}: {error.strerror}", hint="may it be written?") from error
        if self.agent is None:
            raise ConfigError(
                f"no agent is ready in session {session} after {START_S:.0f} s",
                hint=f"tmux attach -t {session} shows why: a question to answer, or no "
                f"{self.table.program} was started there",
            )

    async def _leave_worktree(self, pane: server.Pane) -> None:
        """Where worktrees are no longer wanted, an agent that still is in one leaves it."""
        idle, elsewhere = self.seat.attempt is None, self._cwd != self._choice.cwd
        if self.agent is None or self.work.trees is not None or not (idle and elsewhere):
            return
        if await server.started_by_us(pane):
            await self.move(self._choice.cwd)

    async def _start(self, before: kept.Seat | None) -> server.Pane:
        """A session with the agent in it, which goes on with the conversation that it had
        ``before``; that belongs to a folder."""
        self._cwd, conversation = self._choice.cwd, ""
        if before is not None and (not before.folder or _is_folder(before.folder)):
            self._cwd, conversation = before.folder, before.conversation
        command, environ = self._command(conversation)
        return await server.start(self.place.session, command, self._cwd, environ)

    def _command(self, conversation: str) -> tuple[list[str], dict[str, str]]:
        """Its command line, and what of our environment it is given."""
        agent, choice, folder = self.table, self._choice, self.place.folder
        hooks.install(folder.settings, folder.path)
        command = [
            agent.program,
            *("--settings", str(folder.settings)),
            *(("--resume", conversation) if conversation else ()),
            *(agent.permissions[choice.permissions] if choice.permissions else ()),
            *choice.arguments,
        ]
        names = filter(None, ("PATH", agent.home, agent.as_root))
        own = {name: os.environ[name] for name in names if os.environ.get(name)}
        return command, {**overlay_of(agent, self.meter.url, os.environ).environment, **own}

    async def _meet(self, pane: server.Pane, before: kept.Seat | None = None) -> None:
        """Wait until an agent is there, and begin to follow it; from where the worker before us
        was, if that had an attempt in this very agent."""
        self.agent, self._pane = None, pane
        await server.mark(pane, str(self.place.folder.signs))
        until = time.monotonic() + START_S
        while (place := self._find(pane)) is None:
            if time.monotonic() > until:
                return
            await asyncio.sleep(FIND_S)
        pid, folder = place
        agent = AgentInPane(pid, folder, self.place.folder.signs, time.time())
        attempt = None
        if before is not None and (before.pid, before.started) == (pid, agent.started):
            attempt, self._cwd = before.attempt, before.folder
        if attempt is not None:
            agent = AgentInPane(pid, folder, self.place.folder.signs, 0.0)
            if attempt.transcript:
                agent.read_from(attempt.transcript, attempt.offset)
        else:
            agent.begin_here()
        agent.look()
        self.agent = agent
        self.seat = kept.Seat(
            self.place.session,
            await server.socket(),
            pid,
            agent.started,
            agent.session,
            attempt,
            self._cwd,
            self.meter.url,
        )
        self.place.folder.write(self.seat)

    def _find(self, pane: server.Pane) -> tuple[int, Path] | None:
        return agents.find(pane.pid, os.environ, self.table.folder)

    async def start_again(self) -> None:
        """The dead agent, with its conversation; what cannot be is said in the log. Asked for twice
        at once it is started once."""
        async with self._starting:
            if not self.alive:
                await self._start_again()

    async def _start_again(self) -> None:
        try:
            pane = await server.pane_of(self.place.session)
            if pane is None or pane.dead:
                pane = await self._start(self.seat)
            elif self._find(pane) is None:  # a shell is left, or nothing
                await server.end(self.place.session)
                pane = await self._start(self.seat)
            await self._meet(pane)
        except (server.NoServer, OSError) as error:
            log.warning("the agent cannot be started again: %s", error)

    def moves_to(self, folder: str) -> bool:
        """Whether its next task is for an agent elsewhere."""
        return self.work.trees is not None and folder != self._cwd

    async def move(self, folder: str) -> None:
        """Have the agent in ``folder``: unless it is there, another one takes its place, with a
        conversation of its own. Raises NoServer, RetryableError."""
        pane, old, before = self._pane, self.seat, self._cwd
        if pane is None:
            raise server.NoServer(f"no session {self.place.session} is there")
        command, environ = self._command("")
        await server.start_anew(pane, command, folder or os.getcwd(), environ)
        self._cwd = folder
        pane = await server.pane_of(self.place.session)
        if pane is not None:
            await self._meet(pane)
        until = time.monotonic() + START_S
        while self.agent is None or self.agent.state.now.state == UNKNOWN:
            if self.agent is None or not self.agent.alive or time.monotonic() > until:
                raise RetryableError(f"no agent is ready in {folder} after {START_S:.0f} s")
            await asyncio.sleep(FIND_S)
            self.agent.look()
        while runs(old.pid, old.started) and time.monotonic() < until:  # noqa: ASYNC110 - another's
            await asyncio.sleep(FIND_S)
        if self.work.trees is not None:
            await self.work.trees.leave(before)

    async def press(self, key: str) -> None:
        """Press a key there. Raises NoServer."""
        if self._pane is not None:
            await server.press(self._pane, key)

    async def paste(self, text: str) -> None:
        """Put ``text`` into its input box. Raises NoServer."""
        pane = await server.pane_of(self.place.session)  # a person may look at its past by now
        if pane is None:
            raise server.NoServer(f"no session {self.place.session} is there")
        self._pane = pane
        await server.paste(pane, text)

    def write(self, **changes: Any) -> None:
        """Change what is written down. A failure is no reason not to work."""
        self.seat = replace(self.seat, **changes)
        try:
            self.place.folder.write(self.seat)
        except OSError as error:
            log.warning("after a crash nobody can take up the agent: %s", error)


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()
