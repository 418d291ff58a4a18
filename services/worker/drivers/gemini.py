"""Gemini CLI, headless: ``gemini --output-format stream-json``.

Ended well is a ``result`` of status success. Tokens stand by model, the small router's too; its
output leaves thoughts out, so what is beyond the input is counted as output. What never came to a
result tells its reason on stderr alone, and an exit status of 128 and more is an HTTP status
modulo 256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from services.worker.drivers.agent import Agent, Request, TelemetryOverlay
from services.worker.drivers.loose import as_dict, number_in, object_in, text_in
from services.worker.drivers.stream import AgentStream, Handle
from services.worker.drivers.transcripts import LINES, is_since, lines_of
from services.worker.drivers.watch import Clocks
from services.worker.usage import as_object

_DENIED = ("tool_not_registered", "policy_violation", "permission_denied")
_PERMANENT_EXIT = (41, 42, 52, 53, 55, *(status % 256 for status in (400, 401, 403, 404)))
_LIMIT_EXIT = 429 % 256
_CHAT_TOKENS = ("input", "output", "cached", "thoughts", "tool", "total")
_CHATS = 100  # the newest are looked at
_TRUST = (
    "Gemini does not trust this folder: start `gemini` in it once and trust it, "
    "or give the worker --permissions read, edit or all"
)
_CHATTER = re.compile(
    r"^(Warning:|The 'metricReader|Ripgrep|\[STARTUP\]|YOLO|Loaded|\s+at |Attempt \d|\s*$)"
)


class GeminiStream(AgentStream):
    """See the module. 0.61."""

    def init(self, entry: dict[str, Any]) -> None:
        self.session = text_in(entry, "session_id")

    def message(self, entry: dict[str, Any]) -> None:
        if entry.get("role") == "assistant":
            self.work()
            self.say(text_in(entry, "content"), joined=True)

    def tool_use(self, entry: dict[str, Any]) -> None:
        self.work()
        self.tools.add(text_in(entry, "tool_id"))
        self.say("")  # what it says before it uses a tool is not yet its answer

    def tool_result(self, entry: dict[str, Any]) -> None:
        self.work()
        self.tools.discard(text_in(entry, "tool_id"))
        if text_in(object_in(entry, "error"), "type") in _DENIED:
            self.deny(text_in(entry, "tool_id").partition("__")[0])

    def error_line(self, entry: dict[str, Any]) -> None:
        self.error = text_in(entry, "message")[:300]

    def result(self, entry: dict[str, Any]) -> None:
        self.ended = True
        self.work()
        stats = object_in(entry, "stats")
        models = {name: as_dict(u) for name, u in object_in(stats, "models").items()}
        totals = {name: number_in(usage, "total_tokens") for name, usage in models.items()}
        self.no_call = not any(totals.values())
        if not self.no_call:
            self.model = max(totals, key=lambda name: totals[name])
            self.used = {
                "models": {name: _figures(models[name]) for name in totals if totals[name]}
            }
        if entry.get("status") == "success":
            self.failed, self.error = False, ""
        else:
            self.fail(_words(text_in(object_in(entry, "error"), "message")))
            self.limit = "quota" in self.error.lower() or '"code":429' in self.error

    def after(self, code: int | None, stderr: str, environ: Mapping[str, str]) -> None:
        """What the exit status and stderr say where the stream says nothing."""
        if self.ended and not self.failed:
            return
        if self.used is None and self.session:
            self._read_chat(_home(environ))
        self.permanent = code in _PERMANENT_EXIT
        self.limit = self.limit or code == _LIMIT_EXIT
        self.no_call = self.no_call or (code in _PERMANENT_EXIT and not self.ended)
        if not self.error and code == 55:
            self.error = _TRUST
        elif not self.error:
            self.error = _reason(stderr)

    def _read_chat(self, home: Path) -> None:
        """What was used by a run that never came to its result stands in its chat's file."""
        used = transcript(home, self.session, 0)
        if used is not None:
            models = used["models"]
            self.model = max(models, key=lambda name: models[name]["total"])
            self.used, self.no_call = used, False

    handlers: ClassVar[Mapping[str, Handle]] = {
        "init": init,
        "message": message,
        "tool_use": tool_use,
        "tool_result": tool_result,
        "error": error_line,
        "result": result,
    }


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("GEMINI_CLI_HOME") or environ.get("HOME") or "~"
    return Path(home).expanduser() / ".gemini"


def transcript(folder: Path, session: str, since: int) -> dict[str, Any] | None:
    """What stands in the chat of a session. A line is written again with its tools: one id, one
    call. The calls of the small router stand nowhere here."""
    calls: dict[str, dict[str, Any]] = {}
    for entry in _chat(folder, session):
        if entry.get("type") == "gemini" and object_in(entry, "tokens") and is_since(entry, since):
            calls[text_in(entry, "id")] = entry
    models: dict[str, dict[str, int]] = {}
    for entry in calls.values():
        sums = models.setdefault(text_in(entry, "model"), dict.fromkeys(_CHAT_TOKENS, 0))
        for name in _CHAT_TOKENS:
            sums[name] += number_in(object_in(entry, "tokens"), name)
    return {"models": models} if models else None


def _chat(home: Path, session: str) -> list[dict[str, Any]]:
    """The lines of the session's chat; nothing where there is none to be read."""
    try:
        files = sorted(home.glob("tmp/*/chats/session-*.jsonl"), key=lambda p: p.stat().st_mtime)
    except OSError:
        return []
    for path in reversed(files[-_CHATS:]):
        head = next(lines_of(path, 1), None)
        if head is not None and head.get("sessionId") == session:
            return list(lines_of(path, LINES))
    return []


_OWN = ("GEMINI_TELEMETRY_ENABLED", "GEMINI_TELEMETRY_OTLP_ENDPOINT", "GEMINI_TELEMETRY_OUTFILE")


def _own_telemetry(environ: Mapping[str, str]) -> bool:
    try:
        own = as_object((_home(environ) / "settings.json").read_bytes()) or {}
    except OSError:
        own = {}
    return "telemetry" in own or any(environ.get(name) for name in _OWN)


def _telemetry(url: str) -> TelemetryOverlay:
    """Prompts are in its logs unless it is said otherwise."""
    return TelemetryOverlay(
        {
            "GEMINI_TELEMETRY_ENABLED": "true",
            "GEMINI_TELEMETRY_TARGET": "local",
            "GEMINI_TELEMETRY_OTLP_ENDPOINT": url,
            "GEMINI_TELEMETRY_OTLP_PROTOCOL": "http",
            "GEMINI_TELEMETRY_LOG_PROMPTS": "false",
            "OTEL_BLRP_SCHEDULE_DELAY": "500",
        }
    )


def _figures(usage: dict[str, Any]) -> dict[str, int]:
    names = ("total_tokens", "input_tokens", "output_tokens", "cached", "input")
    return {name: number_in(usage, name) for name in names}


def _words(message: str) -> str:
    """``[API Error: {"error": {"message": …}}]`` as the sentence in it, with the status."""
    inner = re.search(r"\{.*\}", message, re.DOTALL)
    entry = as_object(inner[0].encode()) if inner else None
    error = object_in(entry, "error") if entry is not None else {}
    words = text_in(error, "message")
    return f"API error {number_in(error, 'code')}: {words}" if words else message


def _reason(stderr: str) -> str:
    """The sentence in what stderr holds: an object with an error, else its first words."""
    start = stderr.find("{")
    entry = as_object(stderr[start : stderr.rfind("}") + 1].encode()) if start >= 0 else None
    if entry is not None and (words := text_in(object_in(entry, "error"), "message")):
        return words
    clean = re.sub(r"\x1b\[[0-9;]*m", "", stderr)
    lines = [line.strip() for line in clean.splitlines() if not _CHATTER.match(line)]
    return " ".join(lines)[:300]


def _prompt(text: str) -> str:
    """``@path`` would put a file into the prompt, ``/…`` be a command of its own."""
    escaped = re.sub(r"(?<!\\)@", r"\\@", text)
    return f"The task:\n{escaped}" if escaped.lstrip().startswith(("/", "!")) else escaped


def _command(request: Request) -> list[str]:
    return [
        *("--output-format", "stream-json"),
        *(("-m", request.model) if request.model else ()),
    ]


def _isolate(folder: Path) -> None:
    settings = folder / ".gemini" / "settings.json"
    if settings.exists():
        return
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_bytes(
        msgspec.json.encode(
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}},
                "privacy": {"usageStatisticsEnabled": False},
                "general": {"enableAutoUpdate": False},
            }
        )
    )


AGENT = Agent(
    name="gemini",
    program="gemini",
    title="Gemini CLI",
    install="npm install -g @google/gemini-cli",
    cheap="gemini-3.5-flash-lite",
    capable="gemini-3.8-flash",
    serves=("gemini-*", "auto", "pro", "flash", "flash-lite"),
    command=_command,
    stream=GeminiStream,
    folder=_home,
    transcript=transcript,
    telemetry=_telemetry,
    own_telemetry=_own_telemetry,
    prompt=_prompt,
    permissions={
        "read": ("--approval-mode", "default"),
        "edit": ("--approval-mode", "auto_edit"),
        "all": ("--approval-mode", "yolo"),
    },
    with_permissions={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
    keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    home="GEMINI_CLI_HOME",
    isolate=_isolate,
    environment={"GEMINI_CLI_NO_RELAUNCH": "true"},
    clocks=Clocks(first_s=300, silence_s=600),
)
