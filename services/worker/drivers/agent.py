"""An agent's CLI as a driver: what differs is data and an adapter, what runs is the same for all.

An agent is one file (``claude.py``, ``codex.py``, ``gemini.py``): a table and a reader of its
stream. The prompt goes to standard input, exactly but for what the agent would take for a command
of its own. The user's login and settings are used as they are; credentials are never read.

Ended well is what the agent's own format says, never an exit status. Three clocks run besides the
task's own: until the first sign of work, between two of them (not while a tool runs), and while it
only says that it cannot reach its provider.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from events.worker import serves_model
from services.runtime.errors import ConfigError
from services.worker.drivers.command import ERROR_CHARACTERS, cannot_run, environment
from services.worker.drivers.stream import AgentStream
from services.worker.process.supervised import Exit, Supervised
from services.worker.task import LimitReached, PermanentError, Result, RetryableError, Task

log = logging.getLogger("asb.worker")

PERMISSIONS = ("read", "edit", "all")
INTERRUPT_S = 3.0  # after SIGINT: an agent still tells what it used
LOOK_S = 0.5  # how often the clocks are looked at
SPENT_S = 2.0  # how often a running attempt's usage is told, where it has changed


class Clocks(msgspec.Struct, frozen=True):
    """How long nothing may be seen, in seconds: before the first sign of work, between two of them,
    and while the agent only says that it cannot reach its provider."""

    first_s: float
    silence_s: float
    trouble_s: float = 240.0


class Request(msgspec.Struct, frozen=True):
    """One run: the ``model`` ("": the agent's default) and a ``session`` id that may be given."""

    model: str
    session: str


def _as_it_is(text: str) -> str:
    return text


def _nothing(_folder: Path) -> None: ...


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's table.

    ``cheap`` and ``capable`` are the models that stand for the two tiers of the routes; ``serves``
    names what else it takes, with ``*``. ``last`` stands behind all arguments. ``home`` is the
    variable that names its folder of settings, ``keys`` those that may hold a credential.
    ``as_root`` is the variable that it asks for before it runs without permissions as root;
    ``with_permissions`` is added where the user chose permissions, ``environment`` always, both
    only where the user's own environment does not say otherwise.
    """

    name: str
    program: str
    title: str
    install: str
    cheap: str
    capable: str
    serves: tuple[str, ...]
    command: Callable[[Request], list[str]]
    stream: Callable[[], AgentStream]
    permissions: Mapping[str, tuple[str, ...]]
    keys: tuple[str, ...]
    home: str
    clocks: Clocks
    prompt: Callable[[str], str] = _as_it_is
    last: tuple[str, ...] = ()
    as_root: str = ""
    with_permissions: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    isolate: Callable[[Path], None] = _nothing

    @property
    def models(self) -> tuple[str, ...]:
        """All that it takes, as a worker tells it."""
        return tuple(dict.fromkeys((self.cheap, self.capable, *self.serves)))


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose for a worker's agent. ``isolated``: a folder of settings of its own."""

    permissions: str = ""
    cwd: str = ""
    isolated: Path | None = None
    arguments: tuple[str, ...] = ()
    first_s: float | None = None
    silence_s: float | None = None


class AgentDriver:
    """See the module."""

    def __init__(self, agent: Agent, choice: Choice | None = None) -> None:
        self._agent = agent
        self._choice = choice = choice or Choice()
        self._clocks = Clocks(
            choice.first_s or agent.clocks.first_s,
            choice.silence_s or agent.clocks.silence_s,
            agent.clocks.trouble_s,
        )
        self._lease = (math.inf, math.inf)
        self._runs: set[Supervised] = set()

    async def prepare(self) -> None:
        """Raises ConfigError when the program is missing, or what was chosen cannot work."""
        self.check()

    def check(self) -> None:
        """``prepare`` for whoever is about to start workers."""
        agent, choice = self._agent, self._choice
        if shutil.which(agent.program) is None:
            raise ConfigError(
                f"{agent.title} is not installed: no {agent.program!r} on PATH",
                hint=f"{agent.install}, or add its folder to PATH",
            )
        if choice.permissions not in ("", *agent.permissions):
            raise ConfigError(
                f"--permissions {choice.permissions} is not known",
                hint=f"it is one of {', '.join(agent.permissions)}",
            )
        if choice.cwd and not Path(choice.cwd).is_dir():
            raise ConfigError(f"--cwd {choice.cwd} is no folder", hint="make it first")
        root = choice.permissions == "all" and agent.as_root and os.geteuid() == 0
        if root and not os.environ.get(agent.as_root):
            raise ConfigError(
                f"{agent.title} runs without permissions as root only in a sandbox",
                hint=f"run it as another user, or set {agent.as_root}=1 where this is one",
            )
        if choice.isolated is not None:
            self._isolate(choice.isolated)

    def _isolate(self, folder: Path) -> None:
        if not any(os.environ.get(key) for key in self._agent.keys):
            raise ConfigError(
                f"--isolated gives {self._agent.title} settings of its own, without your login",
                hint=f"set one of {', '.join(self._agent.keys)}, or leave out --isolated",
            )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._agent.isolate(folder)

    def renewed(self, until: float, end: float, /) -> None:
        self._lease = (until, end)
        for run in self._runs:
            run.renew(until, end)

    async def run(self, task: Task, /) -> Result:
        agent = self._agent
        if task.model and not serves_model(agent.models, task.model):
            raise PermanentError(
                f"{agent.title} has no model {task.model}; it takes {', '.join(agent.models)}"
            )
        stream = agent.stream()
        environ = self._environ(task)
        run = Supervised(
            self._command(task),
            env=environ,
            stdin=agent.prompt(task.text).encode("utf-8", "replace"),
            lease=self._lease,
            stdout=stream,
            cwd=self._choice.cwd or None,
        )
        run.interrupt_s = INTERRUPT_S
        self._runs.add(run)
        task.on_pause = run.pause
        if task.paused:
            run.pause(True)
        watch = Watch(self._clocks, run, stream, task)
        end = Exit()
        try:
            end = await watch.wait()
        finally:
            self._runs.discard(run)
            stream.close()
            stream.after(end.code, run.stderr.text(), environ)
            _note(task, stream)
        return self._result(task, end, run, stream, watch.over)

    def _command(self, task: Task) -> list[str]:
        agent, choice = self._agent, self._choice
        request = Request(task.model, str(uuid.uuid4()))
        return [
            agent.program,
            *agent.command(request),
            *(agent.permissions[choice.permissions] if choice.permissions else ()),
            *choice.arguments,
            *agent.last,
        ]

    def _environ(self, task: Task) -> dict[str, str]:
        agent, choice = self._agent, self._choice
        more = dict(agent.environment)
        if choice.permissions:
            more |= agent.with_permissions
        own = environment(task)
        environ = {**more, **own}
        if choice.isolated is not None:
            environ[agent.home] = str(choice.isolated)
        return environ

    def _result(
        self, task: Task, end: Exit, run: Supervised, stream: AgentStream, over: str
    ) -> Result:
        """The result, where the agent says that it ended well; else raise what it means."""
        if stream.ended and not stream.failed:
            return Result(stream.said, stream.used, stream.model, stream.cost_usd)
        program = self._agent.program
        if end.errno is not None:
            raise cannot_run(program, end.errno)
        stderr = run.stderr.text().strip()
        if stderr:
            task.extra = {**(task.extra or {}), "stderr": stderr[-ERROR_CHARACTERS:]}
        words = stream.error or _plain_words(stream, stderr)
        why = f"{over or _how(program, end)}{f': {words}' if words else ''}"
        if stream.limit:
            raise LimitReached(words or why, stream.limit_until)
        refused = not stream.began and end.code not in (None, 0) and not over
        if refused:
            task.calls = 0  # it never got so far as to speak its format
        raise (PermanentError if stream.permanent or refused else RetryableError)(why)


class Watch:
    """A run under its clocks. ``over``: which of them ran out, as words."""

    def __init__(self, clocks: Clocks, run: Supervised, stream: AgentStream, task: Task) -> None:
        self._clocks, self._run, self._stream, self._task = clocks, run, stream, task
        self.over = ""
        self._told: Any = None
        self._told_at = time.monotonic()

    async def wait(self) -> Exit:
        looking = asyncio.create_task(self._look_after())
        try:
            return await self._run.wait()
        finally:
            looking.cancel()

    async def _look_after(self) -> None:
        self._stream.worked_at = time.monotonic()
        while True:
            await anyio.sleep(LOOK_S)
            if self._task.paused:
                self._stream.worked_at = time.monotonic()
            elif not self.over and (over := self._run_out()):
                self.over = over
                self._run.end()
            await self._tell_spent()

    def _run_out(self) -> str:
        stream, clocks, now = self._stream, self._clocks, time.monotonic()
        quiet = now - stream.worked_at
        trouble = now - stream.in_trouble_since if stream.in_trouble_since else 0.0
        if trouble >= clocks.trouble_s:
            return f"could not reach its provider for {trouble:.0f} s and was ended"
        if stream.ended:  # it has told its result and does not go
            return f"did not end after its result for {quiet:.0f} s" if quiet >= 60 else ""
        if not stream.worked:
            return f"no answer within {quiet:.0f} s, ended" if quiet >= clocks.first_s else ""
        if quiet >= clocks.silence_s and not stream.tools:
            return f"silent for {quiet:.0f} s, ended"
        return ""

    async def _tell_spent(self) -> None:
        usage, now = self._stream.live_usage, time.monotonic()
        if usage and usage != self._told and now - self._told_at >= SPENT_S:
            self._told, self._told_at = usage, now
            await self._task.used_so_far(usage, self._stream.model)


def _note(task: Task, stream: AgentStream) -> None:
    """What the attempt's report shall say, however it ends."""
    task.spent = stream.used or stream.live_usage
    task.model_used = stream.model
    task.cost_usd = stream.cost_usd
    task.calls = 0 if stream.no_call and not stream.live_usage else None
    task.extra = stream.facts() or None
    if stream.unknown:
        log.info("task %s: lines of unknown types: %s", task.id, dict(stream.unknown))


def _plain_words(stream: AgentStream, stderr: str) -> str:
    """The reason where the format gives none: the end of what it wrote."""
    ends = [words for words in (stderr, "" if stream.began else stream.text().strip()) if words]
    return " | ".join(words[-(ERROR_CHARACTERS // len(ends)) :] for words in ends)


def _how(program: str, end: Exit) -> str:
    if end.signal is not None:
        return f"{program} was ended by signal {end.signal}"
    if end.code is None:
        return f"{program}: its supervisor was killed"
    return f"{program} ended with status {end.code}, without a good result"
