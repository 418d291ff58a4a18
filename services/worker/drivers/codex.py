"""Codex, headless: ``codex exec --json``.

Ended well is ``turn.completed``, whose usage is the whole thread's. Which model it was, what a
failed or cancelled turn used, how full the limits are and the code of an error stand in the rollout
alone: the file that Codex writes of each thread.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from services.worker.drivers.agent import Agent, Request, TelemetryOverlay
from services.worker.drivers.loose import as_dict, number_in, object_in, text_in
from services.worker.drivers.stream import AgentStream, Handle
from services.worker.drivers.transcripts import LINES, is_session, is_since, lines_of
from services.worker.drivers.watch import Clocks
from services.worker.usage import as_object

_PERMANENT_CODES = ("bad_request", "unauthorized", "context_window_exceeded", "sandbox_error")
_LIMIT_CODES = ("usage_limit_exceeded", "rate_limit_exceeded", "quota_exceeded")
_LIMIT_WORDS = ("usage limit", "Quota exceeded", "last status: 429")
_PERMANENT_WORDS = ("Missing environment variable", "401 Unauthorized", "status 400", "status 403")
_PARTS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
)


class CodexStream(AgentStream):
    """See the module. 0.169 to 0.171."""

    def thread(self, entry: dict[str, Any]) -> None:
        self.session = text_in(entry, "thread_id")

    def turn_started(self, entry: dict[str, Any]) -> None:
        """The turn begins; no model has said anything yet."""

    def item_started(self, entry: dict[str, Any]) -> None:
        self.work()
        self.tools.add(text_in(object_in(entry, "item"), "id"))

    def item_completed(self, entry: dict[str, Any]) -> None:
        item = object_in(entry, "item")
        if item.get("type") == "error":
            return  # a warning, as of a model it does not know: no failure
        self.work()
        self.tools.discard(text_in(item, "id"))
        if item.get("type") == "agent_message":
            self.say(text_in(item, "text"))
        elif item.get("status") == "declined":
            self.deny(text_in(item, "type"))

    def error_line(self, entry: dict[str, Any]) -> None:
        self.trouble()
        self.error = text_in(entry, "message").removeprefix("Reconnecting... ")[:300]

    def completed(self, entry: dict[str, Any]) -> None:
        self.ended, self.failed, self.error = True, False, ""
        self.used = object_in(entry, "usage")
        self.work()

    def turn_failed(self, entry: dict[str, Any]) -> None:
        self.ended = True
        message = text_in(object_in(entry, "error"), "message")
        answer = as_object(message.encode())
        words = text_in(object_in(answer, "error"), "message") if answer is not None else ""
        self.fail(words or message)
        self.limit = any(known in message for known in _LIMIT_WORDS)
        # The answer of the API as it came is one that Codex does not try again: a wrong request.
        self.permanent = bool(words) or any(known in message for known in _PERMANENT_WORDS)

    def after(self, code: int | None, stderr: str, environ: Mapping[str, str]) -> None:
        """Read the rollout of this thread."""
        lines = _rollout(_home(environ), self.session) if self.session else []
        calls, kind_of_error = 0, ""
        for entry in lines:
            kind, payload = entry.get("type"), object_in(entry, "payload")
            inner = payload.get("type")
            if kind == "turn_context":
                self.model = text_in(payload, "model") or self.model
            elif kind == "session_meta":
                self.version = text_in(payload, "cli_version")
            elif kind == "token_usage_record":
                calls += 1
                self._turn(payload)
            elif kind == "event_msg" and inner == "token_count":
                self._limits(object_in(payload, "rate_limits"))
            elif kind == "event_msg" and inner == "task_complete":
                kind_of_error = _code(object_in(payload, "error").get("codex_error_info"))
        self.no_call = bool(lines) and not calls and self.ended and self.failed
        self.limit = self.limit or kind_of_error in _LIMIT_CODES
        self.permanent = (self.permanent or kind_of_error in _PERMANENT_CODES) and not self.limit
        self._until()

    def _turn(self, record: dict[str, Any]) -> None:
        """A failed turn tells no usage, and one that went well the whole thread's: of a thread that
        was resumed, what it used before is not this attempt's."""
        turn, thread = (
            object_in(record, "turn_token_usage"),
            object_in(record, "thread_token_usage"),
        )
        whole = self.ended and not self.failed
        if turn and (not whole or _figures(thread) == _figures(self.used or {})):
            self.used = turn

    def _limits(self, limits: dict[str, Any]) -> None:
        for name in ("primary", "secondary"):
            window = object_in(limits, name)
            if window:
                self.windows[name] = {
                    "used_percent": number_in(window, "used_percent"),
                    "minutes": number_in(window, "window_minutes"),
                    "resets_at": number_in(window, "resets_at"),
                }

    def _until(self) -> None:
        full = [w["resets_at"] for w in self.windows.values() if w["used_percent"] >= 100]
        self.limit_until = max(full, default=0) if self.limit else 0

    handlers: ClassVar[Mapping[str, Handle]] = {
        "thread.started": thread,
        "turn.started": turn_started,
        "item.started": item_started,
        "item.updated": item_started,
        "item.completed": item_completed,
        "error": error_line,
        "turn.completed": completed,
        "turn.failed": turn_failed,
    }


def _code(info: Any) -> str:
    """``usage_limit_exceeded``, or the one key of an object that says more."""
    return info if isinstance(info, str) else next(iter(as_dict(info)), "")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("CODEX_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".codex")


def _figures(usage: dict[str, Any]) -> list[int]:
    return [number_in(usage, name) for name in _PARTS]


def _rollout(home: Path, thread: str) -> list[dict[str, Any]]:
    """The lines of the thread's rollout, oldest first; nothing where there is none to be read."""
    if not is_session(thread):
        return []
    paths = sorted(home.glob(f"sessions/*/*/*/rollout-*{thread}.jsonl"))
    return [entry for path in paths for entry in lines_of(path, LINES)]


def transcript(folder: Path, session: str, since: int) -> dict[str, Any] | None:
    """What stands in the rollout of a thread. Of each turn the last record counts: they are running
    totals, and a thread that was resumed repeats what it was."""
    models: dict[str, str] = {}
    turns: dict[str, dict[str, Any]] = {}
    for entry in _rollout(folder, session):
        payload = object_in(entry, "payload")
        turn = text_in(payload, "turn_id")
        if entry.get("type") == "turn_context":
            models[turn] = text_in(payload, "model")
        elif entry.get("type") == "token_usage_record" and is_since(entry, since):
            turns[turn] = object_in(payload, "turn_token_usage")
    sums: dict[str, dict[str, int]] = {}
    for turn, usage in turns.items():
        model = models.get(turn) or next(reversed(models.values()), "")
        parts = sums.setdefault(model, dict.fromkeys(_PARTS, 0))
        parts.update({name: parts[name] + number_in(usage, name) for name in _PARTS})
    return {"models": sums} if sums else None


def _own_telemetry(environ: Mapping[str, str]) -> bool:
    try:
        own = tomllib.loads((_home(environ) / "config.toml").read_text())
    except (OSError, ValueError):
        own = {}
    return "exporter" in object_in(own, "otel")


def _telemetry(url: str) -> TelemetryOverlay:
    """By options on its command line."""
    exporter = f'{{otlp-http={{endpoint="{url}/v1/logs",protocol="json"}}}}'
    return TelemetryOverlay(
        {"OTEL_BLRP_SCHEDULE_DELAY": "300"},
        ("-c", f"otel.exporter={exporter}", "-c", "otel.log_user_prompt=false"),
    )


def _command(request: Request) -> list[str]:
    return [
        *("exec", "--json", "--skip-git-repo-check"),
        *("-c", "check_for_update_on_startup=false"),
        *(("-m", request.model) if request.model else ()),
    ]


def _isolate(folder: Path) -> None:
    """Without network the analytics of a fresh folder cost five seconds a run."""
    settings = folder / "config.toml"
    if not settings.exists():
        settings.write_text("[analytics]\nenabled = false\n")


AGENT = Agent(
    name="codex",
    program="codex",
    title="Codex",
    install="npm install -g @openai/codex",
    cheap="gpt-6-luna",
    capable="gpt-6.1-sol",
    serves=("gpt-*", "codex-*", "o*-*"),
    command=_command,
    last=("-",),
    stream=CodexStream,
    folder=_home,
    transcript=transcript,
    telemetry=_telemetry,
    own_telemetry=_own_telemetry,
    permissions={
        "read": ("--sandbox", "read-only"),
        "edit": ("--sandbox", "workspace-write"),
        "all": ("--sandbox", "danger-full-access"),
    },
    keys=("CODEX_API_KEY", "OPENAI_API_KEY"),
    home="CODEX_HOME",
    isolate=_isolate,
    clocks=Clocks(first_s=600, silence_s=900, trouble_s=180),
)
