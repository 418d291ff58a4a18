"""What an agent's stream of JSON lines says, whichever agent it is.

An adapter (one class per agent, in the agent's own file) gives each type of line to a method and
notes there what it learns. Lines of unknown types are counted and change nothing: an upgrade of an
agent may add some, and must never change what is charged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from services.worker.drivers.formats import ANSWER_CHARACTERS, Jsonl
from services.worker.drivers.loose import text_in

UNKNOWN_KINDS = 20  # types of unknown lines that are counted apart
DENIED_NAMED = 20
ERROR_CHARACTERS = 500

Handle = Callable[[Any, dict[str, Any]], None]


class AgentStream(Jsonl):
    """What was said so far. ``began``: a line of its format came; ``ended``: it told how it ended.

    ``failed`` and ``error`` are how, ``permanent`` that another attempt would end alike, ``limit``
    that its provider refuses the account (``limit_until``: seconds since the epoch, 0: not told).
    ``used`` is its usage, as ``Result.usage`` may be; ``live_usage`` what is known of it before the
    end. ``no_call``: it is sure that no model was paid for.
    """

    handlers: ClassVar[Mapping[str, Handle]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.began = self.ended = self.permanent = self.limit = self.no_call = False
        self.limit_until = 0
        self.on_session: Callable[[str], None] | None = None
        self._session = self.model = self.version = ""
        self.cost_usd: float | None = None
        self.used: Any = None
        self.live_usage: Any = None
        self.denied: list[str] = []
        self.windows: dict[str, Any] = {}
        self.unknown: Counter[str] = Counter()
        self.tools: set[str] = set()  # that run now: meanwhile silence means nothing
        self.said = ""  # the answer's text
        self.worked_at = time.monotonic()  # the last sign of work
        self.worked = False
        self.in_trouble_since = 0.0  # since when it only says that it cannot reach its provider

    @property
    def session(self) -> str:
        """The agent's session, "" while it is not known; ``on_session`` is told of it at once."""
        return self._session

    @session.setter
    def session(self, session: str) -> None:
        if session and session != self._session and self.on_session is not None:
            self.on_session(session)
        self._session = session or self._session

    def take(self, entry: dict[str, Any]) -> None:
        kind = text_in(entry, "type")
        handle = self.handlers.get(kind)
        if handle is None:
            key = kind[:40] or "without a type"
            known = key in self.unknown or len(self.unknown) < UNKNOWN_KINDS
            self.unknown[key if known else "others"] += 1
            return
        self.began = True
        handle(self, entry)

    def after(self, code: int | None, stderr: str, environ: Mapping[str, str]) -> None:
        """The program is gone, with this exit status (None: none). What it says elsewhere, on
        stderr or in a file of its own, may be read now; ``environ`` was its environment."""

    def work(self) -> None:
        """Something that shows it at work."""
        self.worked = True
        self.worked_at = time.monotonic()
        self.in_trouble_since = 0.0

    def trouble(self) -> None:
        """It says that it cannot reach its provider, and tries again."""
        self.in_trouble_since = self.in_trouble_since or time.monotonic()

    def say(self, text: str, *, joined: bool = False) -> None:
        """The answer's text, or more of it."""
        self.said = ((self.said if joined else "") + text)[-ANSWER_CHARACTERS:]

    def deny(self, tool: str) -> None:
        """It was not allowed to use ``tool``."""
        self.denied.append(tool[:100] or "?")

    def fail(self, error: str) -> None:
        """It says that it failed, and why."""
        self.failed = True
        self.error = error.strip()[:ERROR_CHARACTERS] or self.error

    def answer(self) -> tuple[str, int]:
        return self.said, 0

    def facts(self) -> dict[str, Any]:
        """What else is worth a place in the report; empty things are left out."""
        facts = {
            "agent_session": self.session,
            "agent_version": self.version,
            "denials": len(self.denied),
            "denied": sorted(set(self.denied))[:DENIED_NAMED],
            "rate_limits": self.windows,
            "unknown_lines": dict(self.unknown),
        }
        return {name: value for name, value in facts.items() if value}
