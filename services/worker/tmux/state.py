"""What an agent does and since when, by what it says of itself: never by its screen. PURE.

Three say it: its hooks, its own state file, its transcript. The newest word counts. Hooks are
silent where a person presses Escape, the state file knows of no limit, the transcript of no
question: so each fills what the others leave out. Where none of them speaks it is unknown.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.worker.drivers.loose import text_in

IDLE, BUSY, PERMISSION, LIMITED = "idle", "busy", "permission", "limited"
DEAD, UNKNOWN = "dead", "unknown"
HOOK, FILE, TRANSCRIPT, PROCESS = "hook", "state file", "transcript", "process"
END_S = 1.0  # after its hook said that a turn is over, the state file may still say busy
ABOUT_CHARACTERS = 60

_OF_FILE = {"idle": IDLE, "busy": BUSY, "shell": BUSY, "waiting": PERMISSION}
_OF_HOOK = {
    "SessionStart": IDLE,
    "UserPromptSubmit": BUSY,
    "PermissionRequest": PERMISSION,
    "Stop": IDLE,
    "StopFailure": IDLE,
}


class AgentState(msgspec.Struct, frozen=True):
    """``state`` since ``since`` (seconds since the epoch) by the word of ``evidence``; ``about``:
    the tool whose permission is asked for."""

    state: str = UNKNOWN
    since: float = 0.0
    evidence: str = ""
    about: str = ""

    @property
    def at_work(self) -> bool:
        return self.state in (BUSY, PERMISSION)


class Signs:
    """What was said so far, folded."""

    def __init__(self, since: float) -> None:
        self.now = AgentState(UNKNOWN, since)
        self._file = ""

    def hook(self, entry: dict[str, Any], moment: float) -> None:
        """What a hook handed over at ``moment`` (seconds since the epoch)."""
        name, about = text_in(entry, "hook_event_name"), ""
        state = _OF_HOOK.get(name, "")
        if name == "StopFailure" and text_in(entry, "error") == "rate_limit":
            state = LIMITED
        elif name == "PermissionRequest":
            about = text_in(entry, "tool_name")
        elif name == "Notification":
            kind = text_in(entry, "notification_type")
            state = PERMISSION if kind == "permission_prompt" else ""
            about = self.now.about if self.now.state == PERMISSION else ""
        if name in ("Stop", "SessionStart") and self._file == BUSY and moment:
            return  # the file will say so in a moment, unless another prompt waited
        self._say(state, moment, HOOK, about)

    def file(self, content: dict[str, Any], moment: float) -> None:
        """The agent's state file, as it was written at ``moment``."""
        state = _OF_FILE.get(text_in(content, "status"), "")
        self._file = state
        if state == PERMISSION and "permission" not in text_in(content, "waitingFor"):
            state = PERMISSION if text_in(content, "waitingFor") else BUSY
        if state == IDLE and self.now.state == LIMITED:
            return  # it waits for its provider
        about = self.now.about if state == PERMISSION else ""
        self._say(state, moment, FILE, about)

    def worked(self, moment: float) -> None:
        """An answer or a tool's result stands in the transcript."""
        if self.now.state in (PERMISSION, UNKNOWN):
            self._say(BUSY, moment, TRANSCRIPT)

    def over(self, moment: float) -> None:
        """The transcript says that the turn is over, and no state file says anything."""
        if not self._file and self.now.state != LIMITED:
            self._say(IDLE, moment, TRANSCRIPT)

    def dead(self, moment: float) -> None:
        """Its process is gone."""
        if self.now.state != DEAD:
            self.now = AgentState(DEAD, moment, PROCESS)
        self._file = ""

    def _say(self, state: str, moment: float, evidence: str, about: str = "") -> None:
        if not state or moment < self.now.since:
            return
        if state == self.now.state:
            if about and not self.now.about:
                self.now = msgspec.structs.replace(self.now, about=about[:ABOUT_CHARACTERS])
            return
        self.now = AgentState(state, moment, evidence, about[:ABOUT_CHARACTERS])
