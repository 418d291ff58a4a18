"""An agent's session in tmux: found or started, followed, and started again."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from services.runtime.errors import ConfigError
from services.worker.drivers.agent import Agent, Choice, check_choice, check_installed
from services.worker.tmux import agents, hooks, kept, server
from services.worker.tmux.agents import AgentInPane

log = logging.getLogger("asb.worker")

START_S = 30.0  # how long an agent has until it says what it does
FIND_S = 0.1  # how often it is looked for


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
        self._pane: server.Pane | None = None

    @property
    def alive(self) -> bool:
        return self.agent is not None and self.agent.alive

    def check(self) -> None:
        """Raises ConfigError for what cannot work, before a worker is started."""
        server.check_session(self.place.session)
        check_installed("tmux", "tmux", "install tmux ≥ 3.2")
        check_choice(self.table, self._choice)

    async def open(self) -> None:
        """Find the agent in its session, or start one. Raises ConfigError."""
        self.check()
        folder, session = self.place.folder, self.place.session
        try:
            folder.make()
            before = folder.read()
            pane = await server.pane_of(session)
            if pane is None or pane.dead:
                again = before.conversation if before is not None and self.place.restart else ""
                pane = await self._start(again)
            await self._meet(pane, before)
        except server.NoServer as error:
            raise ConfigError(f"tmux: {error}", hint="is tmux ≥ 3.2 installed?") from error
        except OSError as error:
            raise ConfigError(
                f"{folder.path}: {error.strerror}", hint="may it be written?"
            ) from error
        if self.agent is None:
            raise ConfigError(
                f"no agent is ready in session {session} after {START_S:.0f} s",
                hint=f"tmux attach -t {session} shows why: a question to answer, or no "
                f"{self.table.program} was started there",
            )

    async def _start(self, conversation: str) -> server.Pane:
        """A session with the agent in it, which goes on with ``conversation`` ("": a new one)."""
        agent, choice, folder = self.table, self._choice, self.place.folder
        hooks.install(folder.settings)
        command = [
            agent.program,
            *("--settings", str(folder.settings)),
            *(("--resume", conversation) if conversation else ()),
            *(agent.permissions[choice.permissions] if choice.permissions else ()),
            *choice.arguments,
        ]
        known = {name: os.environ[name] for name in ("PATH", agent.home) if os.environ.get(name)}
        return await server.start(self.place.session, command, choice.cwd, known)

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
            attempt = before.attempt
        if attempt is not None:
            agent = AgentInPane(pid, folder, self.place.folder.signs, 0.0)
            if attempt.transcript:
                agent.read_from(attempt.transcript, attempt.offset)
        else:
            agent.begin_here()
        agent.look()
        self.agent = agent
        self.seat = kept.Seat(
            self.place.session, await server.socket(), pid, agent.started, agent.session, attempt
        )
        self.place.folder.write(self.seat)

    def _find(self, pane: server.Pane) -> tuple[int, Path] | None:
        return agents.find(pane.pid, os.environ, self.table.folder)

    async def start_again(self) -> None:
        """The dead agent, with its conversation; what cannot be is said in the log."""
        try:
            pane = await server.pane_of(self.place.session)
            if pane is None or pane.dead:
                pane = await self._start(self.seat.conversation)
            elif self._find(pane) is None:  # a shell is left, or nothing
                await server.end(self.place.session)
                pane = await self._start(self.seat.conversation)
            await self._meet(pane)
        except (server.NoServer, OSError) as error:
            log.warning("the agent cannot be started again: %s", error)

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
