"""An agent that lives in a tmux session, where people can watch it and type: Claude Code.

The prompt is pasted into its input box; the receipt, the end, the answer and the tokens are what
the agent itself says in its hooks and files (see ``services.worker.tmux``), never what its screen
shows. The session outlives tasks and worker: a cancellation interrupts the turn alone, and after a
crash the next worker of this name takes up what the agent is at. What a person does in the session
is told apart, as work that asb did not give out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time

from events.commands.workers import HoldingAttempt
from services.runtime.ending import to_its_end
from services.runtime.errors import AsbError
from services.runtime.failpoints import point
from services.worker.drivers.agent import Agent, Choice
from services.worker.drivers.sources import TELEMETRY, TRANSCRIPT
from services.worker.identity import runs
from services.worker.task import Result, RetryableError, Task, Tell
from services.worker.tmux import kept, server
from services.worker.tmux.agent_session import START_S, AgentSession, Residence
from services.worker.tmux.agents import AgentInPane
from services.worker.tmux.own_turn import END_S, OwnTurn
from services.worker.tmux.state import HOOK, LIMITED, AgentState
from services.worker.tmux.turns import AgentTurn, Calls, usage_of

log = logging.getLogger("asb.worker")

PROGRAM = "claude"  # the agent that lives in sessions

LOOK_S, IDLE_LOOK_S = 0.1, 0.5  # how often its files are looked at: with a task in hand, without
ENTER_S = (1.0, 1.0, 2.0, 4.0)  # for the receipt, after each try
PASTE_S, PASTE_CHARACTERS_S = 0.2, 100_000  # before Enter; a second more for so many characters
PUT_BACK_S = 0.5  # after a turn is over: then a prompt without an answer stands there again
ESCAPE_S = (0.7, 1.5, 2.0, 2.0)  # for a turn to end, after each Escape
STASH = "C-s"  # of the agent: takes what stands in its input box out, and back into an empty one
HEARD_S = 1.5  # for telemetry to tell of a turn's last calls: it is sent twice a second
UNCLAIMED_S = 20.0  # how long a turn from before goes on unless the bus says that it is ours
NAME_MAX = 200  # characters of an id
RESTART_S = (1.0, 60.0)  # first and longest pause before a dead agent is started again


class TmuxDriver:
    """See the module."""

    def __init__(self, agent: Agent, choice: Choice, place: Residence) -> None:
        self._session = AgentSession(agent, choice, place)
        self._metering = contextlib.AsyncExitStack()
        self._tell: Tell | None = None
        self._said: AgentState | None = None
        self._joined = False
        self._task: Task | None = None
        self._mine: OwnTurn | None = None

    # -- between tasks -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raises ConfigError for what cannot work, before a worker is started."""
        self._session.check()

    async def prepare(self) -> None:
        """Find the agent in its session, or start one. Raises ConfigError."""
        await self._metering.enter_async_context(self._session.metered())
        try:
            await self._session.open()
            await self._session.work.prepare()
        except BaseException:
            await self._metering.aclose()
            raise

    def holds(self) -> tuple[HoldingAttempt, ...]:
        """What the agent is at, given out to the worker before us."""
        attempt, seat = self._session.seat.attempt, self._session.seat
        if attempt is None or self._task is not None or not runs(seat.pid, seat.started):
            return ()
        evidence = f"process {seat.pid} of tmux session {seat.session} is at it"
        return (HoldingAttempt(attempt.task, attempt.attempt, evidence),)

    def joined(self) -> None:
        """A session begins: it knows nothing of the agent yet."""
        self._joined, self._said = True, None

    async def keep(self, tell: Tell) -> None:
        """Look after the agent between tasks, and say what it does. Raises AsbError when it is dead
        and nobody asked for another one."""
        self._tell = tell
        try:
            await self._session.claim.wait(START_S)
            await self._look_after(self._session)
        finally:
            self._session.claim.release()
            await to_its_end(self._metering.aclose())

    async def _look_after(self, session: AgentSession) -> None:
        pause, began = RESTART_S[0], time.monotonic()
        while True:
            if self._task is None:
                self._look()
                unclaimed = session.seat.attempt is not None
                if unclaimed and time.monotonic() - began > UNCLAIMED_S:
                    await self._interrupt()  # nobody gave us back what it is at
                    session.write(attempt=None)
                if session.agent is None or not session.alive:
                    if not session.place.restart:
                        raise AsbError(
                            f"the agent in tmux session {session.place.session} is gone",
                            hint="--restart starts it again, with its conversation",
                        )
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, RESTART_S[1])
                    await session.start_again()
                elif session.agent.state.now.since < time.time() - RESTART_S[1]:
                    pause = RESTART_S[0]
            await asyncio.sleep(IDLE_LOOK_S)

    def renewed(self, until: float, end: float, /) -> None:
        """Nothing: the turn is interrupted by the session, the agent itself lives on."""

    # -- what is seen of it ------------------------------------------------------------------------

    def _look(self) -> None:
        agent = self._session.agent
        if agent is None:
            return
        agent.look()
        if self._mine is not None:
            self._mine.claim(agent)
        self._tell_of_others(agent)
        if agent.session and agent.session != self._session.seat.conversation:
            self._session.write(conversation=agent.session)
        state = agent.state.now
        if self._tell is not None and self._joined and state != self._said:
            self._said = state
            self._tell(
                "worker.state",
                {
                    "state": state.state,
                    "since": int(state.since * 1e6),
                    "by": state.evidence,
                    "about": state.about,
                },
            )

    def _tell_of_others(self, agent: AgentInPane) -> None:
        """What turns used that are none of ours: somebody typed there."""
        if self._mine is None and self._session.seat.attempt is not None:
            return  # one of them may yet be given back to us
        mine = self._mine.turn if self._mine is not None else None
        expecting = self._mine is not None and mine is None
        for turn in list(agent.talk.turns):
            if turn is mine or not turn.ended or (expecting and turn is agent.talk.current):
                continue
            if turn is not agent.talk.current:
                agent.talk.turns.remove(turn)
            calls, turn.calls = turn.calls, {}
            self._tell_calls(calls, TRANSCRIPT)
        prompt = self._mine.prompt_id if self._mine is not None else ""
        self._tell_calls(self._session.meter.strangers(agent.talk.seen, prompt), TELEMETRY)

    def _tell_calls(self, calls: Calls, meter: str) -> None:
        """Each by the agent's own name for it: after a crash the next worker may tell it again."""
        agent, tell = self._session.table.name, self._tell
        if tell is None:
            return
        for name, (model, parts) in calls.items():
            said = {"agent": agent, "model": model, "usage": parts, "meter": meter}
            tell("usage.recorded", said, f"{agent}:{name}"[:NAME_MAX])

    # -- a task ------------------------------------------------------------------------------------

    async def run(self, task: Task, /) -> Result:
        attempt = self._session.seat.attempt
        takes_up = attempt is not None and attempt.is_of(task.id, task.attempt)
        self._task, task.calls = task, 0
        self._mine = mine = OwnTurn(task, self._session.meter, takes_up=takes_up)
        try:
            async with self._session.work.of(task) as folder:
                self._hold(task.paused)
                task.on_pause = self._hold
                return await self._attempted(folder, takes_up)
        finally:
            task.on_pause = None
            self._hold(False)
            self._note(task, mine)
            self._mine = self._task = None
            if self._session.agent is not None:
                self._session.agent.forget_hooks()
            self._session.write(attempt=None)

    def _hold(self, held: bool) -> None:
        """Have the agent wait before its next step, or go on: see ``tmux.hooks``."""
        try:
            self._session.place.folder.hold(held)
        except OSError as error:
            log.warning("the agent cannot be told to wait: %s", error)

    async def _attempted(self, folder: str, takes_up: bool) -> Result:
        try:
            if self._session.seat.attempt is not None and not takes_up:
                await self._interrupt()  # given out again meanwhile
            agent = await self._ready()
            if not takes_up and self._session.moves_to(folder):
                await self._until_free(agent)
                agent = await self._moved(folder)
            await self._delivered(agent, takes_up)
            return await self._ended(agent)
        except asyncio.CancelledError:
            await to_its_end(self._interrupt())
            raise

    async def _moved(self, folder: str) -> AgentInPane:
        """The agent, in the folder of its task."""
        try:
            await self._session.move(folder)
        except (server.NoServer, OSError) as error:
            raise RetryableError(f"tmux: {error}") from error
        return await self._ready()

    async def _until_free(self, agent: AgentInPane) -> None:
        """Until nobody else's turn goes on."""
        while not agent.is_free:
            if not agent.alive:
                raise RetryableError("the agent in tmux is dead")
            await asyncio.sleep(LOOK_S)
            self._look()

    async def _ready(self) -> AgentInPane:
        """The agent, once it is there."""
        session = self._session
        until = time.monotonic() + START_S
        await session.claim.wait(START_S)  # whose name we took ends its turn
        while session.agent is None or not session.alive:
            if not session.place.restart or time.monotonic() > until:
                raise RetryableError("the agent in tmux is dead")
            await session.start_again()
            await asyncio.sleep(LOOK_S)
        self._look()
        return session.agent

    async def _delivered(self, agent: AgentInPane, takes_up: bool) -> None:
        """Until the agent has the prompt, once, and says so."""
        mine, session = self._own(), self._session
        if takes_up and await self._seen(END_S):
            return self._tell_receipt(mine)  # it has it since before we came
        await mine.task.may_go_on()
        await self._until_free(agent)
        file = agent.transcript
        where = (str(file.path), file.offset) if file is not None else ("", 0)
        attempt = kept.KeptAttempt(mine.task.id, mine.task.attempt, agent.session, *where)
        session.write(attempt=attempt)
        mine.begin(agent)
        try:
            if takes_up:
                await self._clear_input()
            # What a person has half written leaves the box, and comes back when ours is on its way.
            await session.press(STASH)
            mine.pasted = True
            await session.paste(mine.typed)
            point("tmux.pasted")
            await asyncio.sleep(PASTE_S + min(1.0, len(mine.typed) / PASTE_CHARACTERS_S))
            mine.task.calls = None  # from here on only the agent knows
            for within in ENTER_S:
                await session.press("Enter")
                point("tmux.entered")
                if await self._seen(within):
                    return self._tell_receipt(mine)
            await self._clear_input()
            await session.press(STASH)  # back
            mine.task.calls = 0 if agent.alive else None
        except server.NoServer as error:
            raise RetryableError(f"tmux: {error}") from error
        raise RetryableError(
            f"not delivered: no receipt from the agent within {sum(ENTER_S):.0f} s"
        )

    def _own(self) -> OwnTurn:
        assert self._mine is not None
        return self._mine

    async def _clear_input(self) -> None:
        """Take out of the input box what may still stand there, ours."""
        with contextlib.suppress(server.NoServer):
            await self._session.press("C-c")
            await asyncio.sleep(PASTE_S)

    async def _seen(self, within: float) -> bool:
        mine = self._own()
        until = time.monotonic() + within
        while not mine.evidence and time.monotonic() < until:
            await asyncio.sleep(LOOK_S / 2)
            self._look()
        return bool(mine.evidence)

    def _tell_receipt(self, mine: OwnTurn) -> None:
        task = mine.task
        task.calls = None
        changes = "; ".join(mine.changes)
        if self._tell is not None:
            said = {"task": task.id, "attempt": task.attempt, "session": task.session}
            self._tell("task.delivered", {**said, "by": mine.evidence, "changes": changes})

    async def _ended(self, agent: AgentInPane) -> Result:
        """Until the turn is over; what it came to."""
        mine, reported = self._own(), None
        while not mine.is_over(agent):
            if not agent.alive:
                raise RetryableError("the agent died in the middle of its turn")
            if mine.task.paused and mine.evidence != HOOK:
                await self._interrupt()
                raise RetryableError(
                    f"interrupted, since its hooks do not call asb (`asb hooks install` "
                    f"writes them), and {mine.task.over_budget}"
                )
            usage = mine.usage
            if usage and usage != reported:
                reported = usage
                await mine.task.used_so_far(usage, mine.turn.model if mine.turn else "", TRANSCRIPT)
            await asyncio.sleep(LOOK_S)
            self._look()
        until = time.monotonic() + HEARD_S
        while not mine.is_heard and time.monotonic() < until:  # noqa: ASYNC110 - another's
            await asyncio.sleep(LOOK_S)
        turn = mine.turn or AgentTurn()
        if agent.state.now.state == LIMITED:
            with contextlib.suppress(server.NoServer):
                await self._session.press("Escape")  # else it goes on by itself at the reset
        return mine.result(turn)

    def _note(self, task: Task, mine: OwnTurn) -> None:
        turn = mine.turn
        if turn is None:
            return
        task.spent, task.meter, task.model_used = mine.usage, TRANSCRIPT, turn.model
        if mine.heard and mine.is_heard:
            task.other_meters = {TELEMETRY: usage_of(mine.heard)}
        self._session.meter.forget(mine.prompt_id)
        task.calls = None if turn.calls or not turn.ended else 0
        turn.calls = {}

    async def _interrupt(self) -> None:
        """End the turn that is ours, not the session: Escape, and at last its process."""
        agent = self._session.agent
        if agent is None:
            return
        await asyncio.sleep(PASTE_S)  # Enter may have been pressed just now
        over = await self._escape(agent)
        if not over:
            session = self._session.place.session
            log.warning("the agent in session %s does not end its turn: killed", session)
            with contextlib.suppress(OSError):
                os.kill(agent.pid, signal.SIGKILL)
        elif agent.alive:
            await asyncio.sleep(PUT_BACK_S)
            self._look()  # its transcript may tell of the end before its state file does
            answered = self._mine is not None and self._mine.usage is not None
            if agent.is_free and not answered:  # else nothing of ours was put back
                await self._clear_input()

    async def _escape(self, agent: AgentInPane) -> bool:
        """Press Escape until our turn is over, some times at most; whether it is."""
        mine = self._mine

        def over() -> bool:
            self._look()
            ours = mine is not None and mine.is_over(agent)
            return ours or agent.is_free or not agent.alive

        for times, within in enumerate(ESCAPE_S):
            if over():
                return True
            with contextlib.suppress(server.NoServer):
                await self._session.press("Escape")
            until = time.monotonic() + within
            if times:
                self._hold(False)  # should it heed the key only when its hooks are through
            while time.monotonic() < until and not over():  # noqa: ASYNC110 - its files
                await asyncio.sleep(LOOK_S / 2)
        return over()
