"""Any agent that speaks the Agent Client Protocol on its standard streams.

::

    asb worker w1 --driver acp -- gemini --acp

One session a task. What an agent advertises is not believed: what it was seen to do counts and
stands in the report. Its requests for permission are answered by policy: refused, unless
``--permissions`` allows that kind of tool; files and terminals of ours it gets none. Usage is what
the answer tells; where it tells none the attempt is unmeasured, and says so. A cancellation is told
to the agent first, and has a deadline.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, cast

from services.runtime.errors import ConfigError
from services.worker.drivers.agent import INTERRUPT_S, Choice, WorkFolder, overlay_of
from services.worker.drivers.arguments import ROUTE
from services.worker.drivers.command import ERROR_CHARACTERS, cannot_run, environment
from services.worker.drivers.loose import as_dict, list_in, object_in, text_in
from services.worker.drivers.sources import note
from services.worker.drivers.stream import AgentStream
from services.worker.drivers.table import AGENTS, agent
from services.worker.drivers.watch import Clocks, Watch
from services.worker.process.supervised import Exit, Supervised
from services.worker.task import PermanentError, Result, RetryableError, Task
from services.worker.telemetry import CallMeter, WorkerTelemetry

CLOCKS = Clocks(first_s=300, silence_s=600)
CANCEL_S = 3.0  # how long an agent has to end its turn after it was told to
_NOT_LOGGED_IN = -32000
_READS = frozenset(("read", "search", "fetch", "think"))
_EDITS = _READS | {"edit", "delete", "move"}
ALLOWED = {"": frozenset[str](), "read": _READS, "edit": _EDITS}


class AcpDriver:
    """See the module."""

    def __init__(self, command: tuple[str, ...], choice: Choice | None = None) -> None:
        self._command = command
        self._choice = choice = choice or Choice()
        self._clocks = Clocks(
            choice.first_s or CLOCKS.first_s, choice.silence_s or CLOCKS.silence_s
        )
        self._lease = (math.inf, math.inf)
        self._runs: set[Supervised] = set()
        self._telemetry = WorkerTelemetry()
        self._folder = WorkFolder(choice)

    async def prepare(self) -> None:
        """Raises ConfigError when there is no such program, or no folder to work in."""
        if not self._command:
            raise ConfigError(
                "--driver acp needs the agent's command", hint="--driver acp -- gemini --acp"
            )
        if shutil.which(self._command[0]) is None:
            raise ConfigError(
                f"the command {self._command[0]!r} cannot be found or is not executable",
                hint="give its full path, or add its folder to PATH",
            )
        await self._folder.prepare()

    def renewed(self, until: float, end: float, /) -> None:
        self._lease = (until, end)
        for run in self._runs:
            run.renew(until, end)

    async def run(self, task: Task, /) -> Result:
        async with self._folder.of(task) as cwd, self._telemetry.attempt() as meter:
            return await self._run(task, meter, cwd or os.getcwd())

    def _overlay(self, url: str, environ: dict[str, str]) -> Mapping[str, str]:
        """For an agent whose telemetry we know, though it speaks this protocol."""
        name = PurePath(self._command[0]).name
        return overlay_of(agent(name), url, environ).environment if name in AGENTS else {}

    async def _run(self, task: Task, meter: CallMeter, cwd: str) -> Result:
        route = {"model": task.model, "agent": task.agent}
        talk = Conversation(task.text, cwd, self._choice.permissions)
        environ = environment(task)
        run = Supervised(
            [ROUTE.sub(lambda match: route[match[1]], part) for part in self._command],
            env={**self._overlay(meter.url, environ), **environ},
            stdin=b"",
            lease=self._lease,
            cwd=cwd,
        )
        run.interrupt_s = INTERRUPT_S
        run.talk = talk.hold
        self._runs.add(run)
        task.on_pause = run.pause
        if task.paused:
            run.pause(True)
        watch = Watch(self._clocks, run, talk.stream, task, meter)
        try:
            end = await _until_over(asyncio.ensure_future(watch.wait()), talk)
        finally:
            self._runs.discard(run)
            note(task, talk.stream, meter, None)
            unmeasured = {} if task.spent else {"unmeasured": "the agent told no usage"}
            task.extra = {**(task.extra or {}), **talk.facts(), **unmeasured}
        return self._result(task, end, run, talk.stream, watch.over)

    def _result(
        self, task: Task, end: Exit, run: Supervised, stream: AgentStream, over: str
    ) -> Result:
        name = self._command[0]
        if stream.ended and not stream.failed:
            return Result(stream.said, task.spent, task.model_used)
        if end.errno is not None:
            raise cannot_run(name, end.errno)
        words = stream.error or run.stderr.text().strip()[-ERROR_CHARACTERS:]
        why = f"{over or f'{name} gave no good answer'}{f': {words}' if words else ''}"
        raise (PermanentError if stream.permanent else RetryableError)(why)


async def _until_over(work: asyncio.Future[Exit], talk: Conversation) -> Exit:
    """Wait for a run. A cancellation is told to the agent, which may end its turn in its own way;
    after the deadline the run ends in ours."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        deadline = asyncio.get_running_loop().time() + CANCEL_S
        talk.cancel()
        while not work.done():
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait([work], timeout=max(0.0, left))
            except asyncio.CancelledError:
                deadline = 0.0  # asked again: no more waiting
            if not work.done() and asyncio.get_running_loop().time() >= deadline:
                work.cancel()
                deadline = math.inf  # its own ending cannot be hurried
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what counts
        raise


class Conversation:
    """One session with an agent, as the client that the protocol's package calls.

    ``stream`` holds what was heard; ``seen`` what the agent was seen to do.
    """

    def __init__(self, text: str, cwd: str, permissions: str) -> None:
        self.stream = AgentStream()
        self.stream.no_call = True  # until it has the prompt
        self.seen: set[str] = set()
        self._text, self._cwd, self._permissions = text, cwd, permissions
        self._agent: Any = None
        self._telling: asyncio.Task[None] | None = None

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {"seen": sorted(self.seen)} if self.seen else {}

    async def hold(self, output: asyncio.StreamReader, to_agent: asyncio.StreamWriter) -> None:
        """The whole conversation; errors are noted, none is raised."""
        from acp import PROTOCOL_VERSION, connect_to_agent, text_block
        from acp.schema import ClientCapabilities

        self._agent = agent = connect_to_agent(cast("Any", self), to_agent, output)
        stream = self.stream
        try:
            hello = await agent.initialize(PROTOCOL_VERSION, ClientCapabilities())
            info = as_dict(hello.model_dump().get("agent_info"))
            stream.version = " ".join(filter(None, (text_in(info, n) for n in ("name", "version"))))
            stream.began = True
            session = await agent.new_session(cwd=self._cwd, mcp_servers=[])
            stream.session = session.session_id
            stream.no_call = False
            answer = await agent.prompt(session_id=stream.session, prompt=[text_block(self._text)])
            self._ended(answer.model_dump(by_alias=True))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever an agent or its protocol's package may do
            stream.fail(str(error) or type(error).__name__)
            code = getattr(error, "code", 0)
            stream.permanent = code in (_NOT_LOGGED_IN, -32601, -32602)
            stream.no_call = stream.no_call or code == _NOT_LOGGED_IN
        finally:
            await agent.close()

    def _ended(self, answer: dict[str, Any]) -> None:
        stream, reason = self.stream, text_in(answer, "stopReason")
        stream.ended = True
        if reason not in ("end_turn", ""):
            stream.fail(f"it stopped: {reason.replace('_', ' ')}")
            stream.permanent = reason == "refusal"
        self._usage(answer)

    def _usage(self, answer: dict[str, Any]) -> None:
        """The protocol's own field, else what Gemini puts beside it: its quota, by model."""
        usage = object_in(answer, "usage")
        quota = object_in(object_in(answer, "_meta"), "quota")
        models = {
            text_in(entry, "model"): object_in(entry, "token_count")
            for entry in map(as_dict, list_in(quota, "model_usage"))
        }
        if usage:
            self.stream.used = usage
        elif models:
            self.stream.used = {"models": models}
            self.stream.model = next(iter(models)) if len(models) == 1 else ""
        elif object_in(quota, "token_count"):
            self.stream.used = object_in(quota, "token_count")
        if self.stream.used:
            self.seen.add("usage")

    def cancel(self) -> None:
        """Tell the agent to end its turn, where it has one."""
        if self._agent is not None and self.stream.session and self._telling is None:
            self._telling = asyncio.ensure_future(self._tell_cancel())

    async def _tell_cancel(self) -> None:
        try:
            await self._agent.cancel(session_id=self.stream.session)
        except Exception:
            return  # it is gone, or cannot be told: the deadline ends it

    # -- what the agent asks of us, by the names of the protocol's package -------------------------

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Something happened: the answer goes on, a tool began or ended."""
        entry = as_dict(update.model_dump(by_alias=True))
        kind = text_in(entry, "sessionUpdate")
        self.stream.work()
        self.seen.add(kind)
        if kind == "agent_message_chunk":
            self.stream.say(text_in(object_in(entry, "content"), "text"), joined=True)
        elif kind in ("tool_call", "tool_call_update"):
            self._tool(text_in(entry, "toolCallId"), text_in(entry, "status"), kind)

    def _tool(self, tool: str, status: str, kind: str) -> None:
        if status in ("completed", "failed"):
            self.stream.tools.discard(tool)
        elif kind == "tool_call":
            self.stream.tools.add(tool)
            self.stream.say("")  # what it says before it uses a tool is not yet its answer

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[Any], **_: Any
    ) -> Any:
        """Answered by policy."""
        from acp.schema import AllowedOutcome, DeniedOutcome, RequestPermissionResponse

        self.stream.work()
        self.seen.add("request_permission")
        tool = as_dict(tool_call.model_dump(by_alias=True))
        kind = text_in(tool, "kind") or "other"
        allowed = self._permissions == "all" or kind in ALLOWED.get(self._permissions, ())
        wanted = ("allow_once", "allow_always") if allowed else ("reject_once", "reject_always")
        kinds = {option.kind: option.option_id for option in options}
        choice = next((kinds[name] for name in wanted if name in kinds), None)
        if not allowed:
            self.stream.deny(text_in(tool, "title") or kind)
        if choice is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        outcome = AllowedOutcome(outcome="selected", option_id=choice)
        return RequestPermissionResponse(outcome=outcome)

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """An extension that we do not know."""
        return {}

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """News that we do not know."""

    def on_connect(self, conn: Any) -> None:
        """The package says hello; nothing to do."""
