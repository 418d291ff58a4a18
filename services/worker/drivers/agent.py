"""An agent's CLI as a driver: what differs is data and an adapter, what runs is the same for all.

An agent is one file (``claude.py``, ``codex.py``, ``gemini.py``): a table and a reader of its
stream. The prompt goes to standard input, exactly but for what the agent would take for a command
of its own. The user's login and settings are used as they are; credentials are never read.

Ended well is what the agent's own format says, never an exit status. Three clocks run besides the
task's own: until the first sign of work, between two of them (not while a tool runs), and while it
only says that it cannot reach its provider.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from events.worker import serves_model
from services.runtime.errors import ConfigError
from services.worker.drivers.command import ERROR_CHARACTERS, cannot_run, environment
from services.worker.drivers.sources import note
from services.worker.drivers.stream import AgentStream
from services.worker.drivers.watch import Clocks, Watch
from services.worker.process.supervised import Exit, Supervised
from services.worker.records import AttemptRecord, write
from services.worker.task import LimitReached, PermanentError, Result, RetryableError, Task
from services.worker.telemetry import CallMeter, WorkerTelemetry
from services.worker.worktrees import Worktrees

PERMISSIONS = ("read", "edit", "all")
PERMANENT_STATUS = (400, 401, 402, 403, 404, 413)  # of HTTP: another attempt would end alike
INTERRUPT_S = 3.0  # after SIGINT: an agent still tells what it used


class Request(msgspec.Struct, frozen=True):
    """One run: the ``model`` ("": the agent's default) and a ``session`` id that may be given."""

    model: str
    session: str


class TelemetryOverlay(msgspec.Struct, frozen=True):
    """What an agent is given on top of its own settings, so that it sends us its telemetry."""

    environment: Mapping[str, str] = {}
    arguments: tuple[str, ...] = ()


Transcript = Callable[[Path, str, int], dict[str, Any] | None]


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

    ``names_session``: its session has the id that it was started with. ``folder`` is where it keeps
    its transcripts under an environment; ``transcript`` what stands in a session's there since a
    moment (µs), as usage by model, None for nothing; ``telemetry`` what makes it send its telemetry
    to a URL; ``own_telemetry`` whether the user has it sent elsewhere already.
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
    names_session: bool = False
    environment: Mapping[str, str] = {}
    isolate: Callable[[Path], None] = _nothing
    folder: Callable[[Mapping[str, str]], Path]
    transcript: Transcript
    telemetry: Callable[[str], TelemetryOverlay]
    own_telemetry: Callable[[Mapping[str, str]], bool]

    @property
    def models(self) -> tuple[str, ...]:
        """All that it takes, as a worker tells it."""
        return tuple(dict.fromkeys((self.cheap, self.capable, *self.serves)))


def overlay_of(agent: Agent, url: str, environ: Mapping[str, str]) -> TelemetryOverlay:
    """What makes ``agent`` send its telemetry to ``url``; nothing where that is "", or where the
    user has it sent elsewhere."""
    if not url or agent.own_telemetry(environ):
        return TelemetryOverlay()
    return agent.telemetry(url)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose for a worker's agent. ``isolated``: a folder of settings of its own;
    ``records``: the file that says which session an attempt is; ``worktree``: each task has a git
    worktree of its own."""

    permissions: str = ""
    cwd: str = ""
    isolated: Path | None = None
    arguments: tuple[str, ...] = ()
    first_s: float | None = None
    silence_s: float | None = None
    records: Path | None = None
    worktree: bool = False


class WorkFolder:
    """The folder in which attempts work: the one that was chosen, or a worktree for each task."""

    def __init__(self, choice: Choice) -> None:
        self.cwd = choice.cwd
        self.trees = Worktrees(choice.cwd) if choice.worktree else None

    def check(self) -> None:
        """Raises ConfigError where it cannot be had."""
        if self.cwd and not Path(self.cwd).is_dir():
            raise ConfigError(f"--cwd {self.cwd} is no folder", hint="make it first")
        if self.trees is not None:
            self.trees.check()

    async def prepare(self) -> None:
        """``check``, and remove what nobody needs any more. Raises ConfigError."""
        self.check()
        if self.trees is not None:
            await self.trees.sweep()

    @contextlib.asynccontextmanager
    async def of(self, task: Task) -> AsyncGenerator[str]:
        """That of an attempt; "" for the worker's own. Raises what ``Worktrees.used_by`` raises."""
        if self.trees is None:
            yield self.cwd
            return
        async with self.trees.used_by(task) as folder:
            yield folder


def check_installed(program: str, title: str, install: str) -> None:
    """Raises ConfigError where ``program`` is not on PATH; ``install`` says what helps."""
    if shutil.which(program) is None:
        raise ConfigError(
            f"{title} is not installed: no {program!r} on PATH",
            hint=f"{install}, or add its folder to PATH",
        )


def check_choice(agent: Agent, choice: Choice) -> None:
    """Raises ConfigError where the agent's program is missing, or what was chosen cannot work."""
    check_installed(agent.program, agent.title, agent.install)
    if choice.permissions not in ("", *agent.permissions):
        raise ConfigError(
            f"--permissions {choice.permissions} is not known",
            hint=f"it is one of {', '.join(agent.permissions)}",
        )
    root = choice.permissions == "all" and agent.as_root and os.geteuid() == 0
    if root and not os.environ.get(agent.as_root):
        raise ConfigError(
            f"{agent.title} runs without permissions as root only in a sandbox",
            hint=f"run it as another user, or set {agent.as_root}=1 where this is one",
        )


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
        self._telemetry = WorkerTelemetry()
        self._folder = WorkFolder(choice)

    async def prepare(self) -> None:
        """Raises ConfigError when the program is missing, or what was chosen cannot work."""
        self.check()
        await self._folder.prepare()

    def check(self) -> None:
        """``prepare`` for whoever is about to start workers."""
        agent, choice = self._agent, self._choice
        check_choice(agent, choice)
        self._folder.check()
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
            task.calls = 0
            raise PermanentError(
                f"{agent.title} has no model {task.model}; it takes {', '.join(agent.models)}"
            )
        async with self._folder.of(task) as cwd, self._telemetry.attempt() as meter:
            return await self._run(task, meter, cwd)

    async def _run(self, task: Task, meter: CallMeter, cwd: str) -> Result:
        agent, stream, since = self._agent, self._agent.stream(), time.time_ns() // 1000
        environ = self._environ(task)
        overlay = overlay_of(agent, meter.url, environ)
        environ = {**overlay.environment, **environ}
        stream.on_session = lambda session: self._record(task, session, environ, since)
        request = Request(task.model, str(uuid.uuid4()))
        run = Supervised(
            self._command(request, overlay),
            env=environ,
            stdin=agent.prompt(task.text).encode("utf-8", "replace"),
            lease=self._lease,
            stdout=stream,
            cwd=cwd or None,
        )
        run.interrupt_s = INTERRUPT_S
        self._runs.add(run)
        task.on_pause = run.pause
        if task.paused:
            run.pause(True)
        if agent.names_session:
            stream.session = request.session
        watch = Watch(self._clocks, run, stream, task, meter)
        end = Exit()
        try:
            end = await watch.wait()
        finally:
            self._runs.discard(run)
            stream.close()
            stream.after(end.code, run.stderr.text(), environ)
            transcript = None
            if stream.session:
                transcript = agent.transcript(agent.folder(environ), stream.session, since)
            note(task, stream, meter, transcript)
        return self._result(task, end, run, stream, watch.over)

    def _record(self, task: Task, session: str, environ: Mapping[str, str], since: int) -> None:
        if self._choice.records is None:
            return
        folder = str(self._agent.folder(environ).absolute())
        of = (task.id, task.attempt, task.worker, self._agent.name)
        write(self._choice.records, AttemptRecord(*of, session, folder, since))

    def _command(self, request: Request, overlay: TelemetryOverlay) -> list[str]:
        agent, choice = self._agent, self._choice
        return [
            agent.program,
            *agent.command(request),
            *overlay.arguments,
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
            return Result(stream.said, task.spent, task.model_used, stream.cost_usd)
        program = self._agent.program
        if end.errno is not None:
            task.calls = 0
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
