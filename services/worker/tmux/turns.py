"""A conversation as Claude Code's transcript tells it, turn by turn. PURE.

A turn begins with what a person, or we, typed, and owns the calls to models until the next one.
One answer is several lines with one message id, each with what is known of its usage by then.
What the agent says to itself (reports of its background tasks, summaries) opens no turn.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.worker.drivers.loose import as_dict, list_in, number_in, object_in, text_in

PARTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
INTERRUPTED = "[Request interrupted by user"
NOTICE = "<task-notification"  # what a background task of the agent reports begins so
DONE, STOPPED, FAILED = "done", "interrupted", "failed"


Calls = dict[str, tuple[str, dict[str, int]]]  # by name: the model, and what it used, by PARTS


class AgentTurn(msgspec.Struct):
    """One turn. ``ended``: how, "" while it goes on; ``error`` and ``limit_until`` (seconds since
    the epoch) where it failed; ``last_stop``: why the newest answer ended; ``number``: which of
    those that were followed, from 1."""

    prompt: str = ""
    prompt_id: str = ""
    name: str = ""  # the line's own id
    calls: Calls = {}
    said: str = ""
    last_stop: str = ""
    ended: str = ""
    error: str = ""
    limit: bool = False
    limit_until: int = 0
    status: int = 0
    number: int = 0

    @property
    def usage(self) -> dict[str, Any] | None:
        """What its calls used, by model; None where none was seen."""
        return usage_of(self.calls)

    @property
    def model(self) -> str:
        """The one that did most of the work, "" for none."""
        models = as_dict((self.usage or {}).get("models"))
        return max(models, key=lambda name: sum(models[name].values())) if models else ""


def usage_of(calls: Calls) -> dict[str, Any] | None:
    """What these calls used, by model; None where there are none."""
    models: dict[str, dict[str, int]] = {}
    for model, parts in calls.values():
        sums = models.setdefault(model, dict.fromkeys(PARTS, 0))
        sums.update({part: sums[part] + parts[part] for part in PARTS})
    return {"models": models} if models else None


class Turns:
    """The turns since it is followed; ``current`` is the newest. ``seen``: the names of all its
    calls; ``notices``: reports of its background tasks that it has yet to take up."""

    def __init__(self) -> None:
        self.turns: list[AgentTurn] = []
        self.seen: set[str] = set()
        self.notices = 0
        self.current = AgentTurn(ended=DONE)  # of what was before nothing is known
        # Seconds since the epoch: the newest line of an answer or a tool; the newest end.
        self.worked_at = self.ended_at = self._moment = 0.0

    def take(self, entry: dict[str, Any], moment: float) -> None:
        """One line of the transcript, written at ``moment`` (seconds since the epoch)."""
        kind = text_in(entry, "type")
        self._moment = moment
        if kind == "user":
            self._user(entry, moment)
        elif kind == "assistant":
            self._assistant(entry, moment)
        elif kind == "system" and text_in(entry, "subtype") == "turn_duration":
            self._end(DONE)
        elif kind == "queue-operation" and text_in(entry, "operation") == "enqueue":
            self.notices += text_in(entry, "content").startswith(NOTICE)

    def take_of_subagent(self, entry: dict[str, Any], moment: float) -> None:
        """One line of a subagent's own transcript: its calls are the turn's."""
        if entry.get("type") == "assistant":
            self.worked_at = max(self.worked_at, moment)
            self._call(entry)

    def _user(self, entry: dict[str, Any], moment: float) -> None:
        content = object_in(entry, "message").get("content")
        pieces = [{"type": "text", "text": content}] if isinstance(content, str) else []
        pieces = pieces or [as_dict(p) for p in list_in(object_in(entry, "message"), "content")]
        texts = [text_in(piece, "text") for piece in pieces if piece.get("type") == "text"]
        if any(text.startswith(INTERRUPTED) for text in texts):
            self._end(STOPPED)
            return
        if any(piece.get("type") == "tool_result" for piece in pieces) or not texts:
            self.worked_at = max(self.worked_at, moment)
            return
        if entry.get("isMeta") or entry.get("isCompactSummary") or entry.get("isSidechain"):
            return
        origin = object_in(entry, "origin").get("kind")
        if origin not in (None, "human"):
            self.current.ended = ""  # its background tasks report: it goes on
            self.notices = max(0, self.notices - 1)
            return
        self._end(self.current.ended or DONE)
        self.notices = 0
        self.current = AgentTurn(
            "".join(texts),
            text_in(entry, "promptId"),
            text_in(entry, "uuid"),
            calls={},
            number=self.current.number + 1,
        )
        self.turns.append(self.current)

    def _assistant(self, entry: dict[str, Any], moment: float) -> None:
        message = object_in(entry, "message")
        texts = "".join(
            text_in(piece, "text")
            for piece in map(as_dict, list_in(message, "content"))
            if piece.get("type") == "text"
        )
        if entry.get("isApiErrorMessage") or message.get("model") == "<synthetic>":
            self._fail(entry, texts)
            return
        self.worked_at = max(self.worked_at, moment)
        turn = self.current
        turn.said = texts or turn.said
        turn.last_stop = text_in(message, "stop_reason")
        self._call(entry)

    def _fail(self, entry: dict[str, Any], words: str) -> None:
        turn = self.current
        turn.error = words or text_in(entry, "error") or "API error"
        turn.status = number_in(entry, "apiErrorStatus")
        turn.limit = text_in(entry, "error") == "rate_limit" or turn.status == 429
        turn.limit_until = number_in(object_in(entry, "quotaLimits"), "resetsAt")
        self._end(FAILED)

    def _call(self, entry: dict[str, Any]) -> None:
        """A call has the name that the agent's telemetry has for it, where the line says it."""
        message = object_in(entry, "message")
        name, usage = (
            text_in(entry, "requestId") or text_in(message, "id"),
            object_in(message, "usage"),
        )
        if not name or not usage:
            return
        self.seen.add(name)
        model = text_in(message, "model").partition("[")[0]
        parts = self.current.calls.setdefault(name, (model, dict.fromkeys(PARTS, 0)))[1]
        parts.update({part: max(parts[part], number_in(usage, part)) for part in PARTS})

    def _end(self, how: str) -> None:
        if not self.current.ended:
            self.current.ended, self.ended_at = how, self._moment
