"""The turn of the attempt in hand, as it becomes known among what others do in the session."""

from __future__ import annotations

import time
from typing import Any

from services.worker.drivers.agent import PERMANENT_STATUS
from services.worker.drivers.loose import as_dict, list_in, text_in
from services.worker.task import LimitReached, PermanentError, Result, RetryableError, Task
from services.worker.tmux import prompts
from services.worker.tmux.agents import AgentInPane
from services.worker.tmux.meter import SessionMeter
from services.worker.tmux.state import HOOK, TRANSCRIPT
from services.worker.tmux.turns import DONE, FAILED, STOPPED, AgentTurn, Calls, usage_of

NOTICE_S = 3.0  # how long after the end of a turn a report that waits may make it go on
END_S = 1.5  # between the agent's word that a turn is over and the end of its transcript
_ENDS_OF_ANSWERS = ("end_turn", "stop_sequence", "max_tokens", "refusal")


class OwnTurn:
    """The turn of the attempt in hand, as it becomes known. ``evidence``: who said that the prompt
    arrived; ``changes``: what differs between the task's text and what the agent has.

    ``takes_up``: it may have begun already. Else nothing is ours before ``begin``: the turn before
    may have been about the same words.
    """

    def __init__(self, task: Task, meter: SessionMeter, *, takes_up: bool) -> None:
        self.task, self._meter = task, meter
        self._begun = takes_up
        self.typed, self.changes = prompts.for_input(task.text)
        self.pasted = False
        self.evidence = ""
        self.turn: AgentTurn | None = None
        self.prompt_id = ""
        self._stop: dict[str, Any] = {}
        self._stopped_at = self._idle_at = 0.0
        self._looked = 0  # the newest turn that was looked at

    def begin(self, agent: AgentInPane) -> None:
        """The prompt is on its way: what was until now is about something else."""
        agent.take_hooks()
        self._begun, self._looked = True, agent.talk.current.number

    def claim(self, agent: AgentInPane) -> None:
        """What of the agent's new signs is about this attempt."""
        if not self._begun:
            return
        for entry in agent.take_hooks():
            name = text_in(entry, "hook_event_name")
            if name == "UserPromptSubmit":
                self._arrived(text_in(entry, "prompt"), text_in(entry, "prompt_id"), HOOK)
            elif name in ("Stop", "StopFailure") and self.evidence and self._is_mine(entry, agent):
                self._stop, self._stopped_at = entry, time.monotonic()
        for turn in agent.talk.turns:
            if self.turn is None and turn.number > self._looked:
                self._looked = turn.number
                known = self.prompt_id and turn.prompt_id == self.prompt_id
                if known or self._arrived(turn.prompt, turn.prompt_id, TRANSCRIPT):
                    self.turn = turn

    def _is_mine(self, entry: dict[str, Any], agent: AgentInPane) -> bool:
        """Where agents of its own report to it, that has another id, and is the same turn."""
        known = text_in(entry, "prompt_id") in ("", self.prompt_id)
        return known or (self.turn is not None and agent.talk.current is self.turn)

    def _arrived(self, prompt: str, prompt_id: str, evidence: str) -> bool:
        changes = prompts.compared(self.typed, prompt)
        if changes is None:
            return False
        if not self.evidence:
            self.evidence, self.prompt_id = evidence, prompt_id
            self.changes = (*self.changes, *changes)
        return True

    @property
    def usage(self) -> dict[str, Any] | None:
        """What its calls used so far, by model: each call once, whichever meter told of it."""
        calls, heard = self._calls, self.heard
        return usage_of(calls if calls.keys().isdisjoint(heard) else {**heard, **calls})

    @property
    def heard(self) -> Calls:
        """The calls that the agent's telemetry told of."""
        return self._meter.of_prompt(self.prompt_id)

    @property
    def is_heard(self) -> bool:
        """Whether telemetry has told of all that the transcript has; True where it never does."""
        calls, heard = self._calls, self.heard
        if not heard or calls.keys() <= heard.keys():
            return True
        return calls.keys().isdisjoint(heard) and len(calls) <= len(heard)

    @property
    def _calls(self) -> Calls:
        return self.turn.calls if self.turn is not None else {}

    def is_over(self, agent: AgentInPane) -> bool:
        """By the agent's own word: its transcript, its hook, at last its state."""
        if not self.evidence:
            return False
        now, turn = time.monotonic(), self.turn
        if turn is not None and turn.ended and turn is not agent.talk.current:
            return True  # somebody began another one
        if self._waits_for_agents():
            return False
        if turn is not None and turn.ended:
            return not agent.talk.notices or time.time() - agent.talk.ended_at > NOTICE_S
        if self._stop:
            return now - self._stopped_at >= END_S
        if agent.state.now.at_work:
            self._idle_at = 0.0
            return False
        self._idle_at = self._idle_at or now
        return now - self._idle_at >= END_S

    def _waits_for_agents(self) -> bool:
        """It said that it stops, and that agents of its own are still at work for it."""
        tasks = map(as_dict, list_in(self._stop, "background_tasks"))
        return any("agent" in text_in(task, "type") for task in tasks)

    def result(self, turn: AgentTurn) -> Result:
        """What it came to. Raises what it means, where that is no answer."""
        words = text_in(self._stop, "last_assistant_message")
        failed = turn.ended == FAILED or text_in(self._stop, "hook_event_name") == "StopFailure"
        if failed:
            why = turn.error or words or text_in(self._stop, "error")
            if turn.limit or text_in(self._stop, "error") == "rate_limit":
                raise LimitReached(why, turn.limit_until)
            raise (PermanentError if turn.status in PERMANENT_STATUS else RetryableError)(why)
        if turn.ended == STOPPED or (not self._stop and turn.ended != DONE and not _whole(turn)):
            raise RetryableError("the turn was interrupted in its session")
        said = turn.said or words
        if not said:
            raise RetryableError("the turn ended without an answer")
        return Result(said, self.usage, turn.model)


def _whole(turn: AgentTurn) -> bool:
    return turn.last_stop in _ENDS_OF_ANSWERS
