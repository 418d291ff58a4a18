"""Claude Code, headless: ``claude -p --output-format stream-json``.

Ended well is the process's end and a last ``result`` that is no error; there may be several, since
subagents report in the background. Tokens are those by model: the last line's ``usage`` is one
turn's and leaves subagents out. A resumed session goes on from its stored total, so where a result
tells what came since the one before, these are summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from services.worker.drivers.agent import PERMANENT_STATUS, Agent, Request, TelemetryOverlay
from services.worker.drivers.loose import as_dict, list_in, number_in, object_in, text_in
from services.worker.drivers.stream import AgentStream, Handle
from services.worker.drivers.transcripts import LINES, is_session, is_since, lines_of
from services.worker.drivers.watch import Clocks

_PARTS = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
_LIVE = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_PERMANENT_END = ("prompt_too_long", "max_turns", "budget_exhausted")
_NO_KEY = "Not logged in"


class ClaudeStream(AgentStream):
    """See the module. 2.1.197 to 2.1.332."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[str, Any] = {}  # by model, of the newest result
        self._since: dict[str, dict[str, int]] = {}  # by model, summed over all results
        self._all_tell_since = True
        self._calls: dict[str, dict[str, int]] = {}  # by message: its usage so far

    def system(self, entry: dict[str, Any]) -> None:
        kind = text_in(entry, "subtype")
        if kind == "init":
            self.session = text_in(entry, "session_id")
            self.model = self.model or _bare(text_in(entry, "model"))
            self.version = text_in(entry, "claude_code_version")
            return
        if kind == "api_retry":
            self.trouble()
        elif kind == "permission_denied":
            self.work()
        elif kind in ("task_started", "task_updated", "task_notification", "task_progress"):
            self.work()
            self._background(entry, kind)

    def _background(self, entry: dict[str, Any], kind: str) -> None:
        task = "task " + text_in(entry, "task_id")
        over = object_in(entry, "patch").get("status") in ("completed", "failed", "killed")
        if kind == "task_started":
            self.tools.add(task)
        elif kind == "task_notification" or over:
            self.tools.discard(task)

    def assistant(self, entry: dict[str, Any]) -> None:
        message = object_in(entry, "message")
        if message.get("model") == "<synthetic>" or entry.get("is_api_error_message"):
            return  # an error in an answer's clothes; the result line says it again
        self.work()
        for piece in map(as_dict, list_in(message, "content")):
            if piece.get("type") == "tool_use":
                self.tools.add(text_in(piece, "id"))
        self._call(text_in(message, "id"), object_in(message, "usage"))

    def user(self, entry: dict[str, Any]) -> None:
        self.work()
        for piece in map(as_dict, list_in(object_in(entry, "message"), "content")):
            self.tools.discard(text_in(piece, "tool_use_id"))

    def event(self, entry: dict[str, Any]) -> None:
        self.work()
        inner = object_in(entry, "event")
        kind = inner.get("type")
        if kind == "message_start":
            message = object_in(inner, "message")
            self._call(text_in(message, "id"), object_in(message, "usage"))
        elif kind == "message_delta" and "usage" in inner:
            self._call(text_in(entry, "api_message_id"), object_in(inner, "usage"))

    def _call(self, message: str, usage: dict[str, Any]) -> None:
        """One call's usage as known so far: a line repeats it, and a later one completes it."""
        if not message or not usage:
            return
        call = self._calls.setdefault(message, dict.fromkeys(_LIVE, 0))
        for name in _LIVE:
            call[name] = max(call[name], number_in(usage, name))
        self.live_usage = {name: sum(c[name] for c in self._calls.values()) for name in _LIVE}

    def rate_limit(self, entry: dict[str, Any]) -> None:
        info = object_in(entry, "rate_limit_info")
        windows = object_in(info, "unifiedWindows")
        kind = text_in(info, "rateLimitType")
        if kind and not windows:
            windows = {kind: info}
        self.windows.update(
            {
                name: {
                    "used_percent": round(100 * window.get("utilization", 0)),
                    "resets_at": number_in(window, "resetsAt"),
                }
                for name, window in ((n, as_dict(w)) for n, w in windows.items())
                if isinstance(window.get("utilization", 0), int | float)
            }
        )
        rejected = info.get("status") == "rejected"
        self.limit_until = number_in(info, "resetsAt") if rejected else 0

    def result(self, entry: dict[str, Any]) -> None:
        self.ended = True
        self.work()
        self.tools = {name for name in self.tools if name.startswith("task ")}
        self.session = text_in(entry, "session_id") or self.session
        for denial in map(as_dict, list_in(entry, "permission_denials")):
            self.deny(text_in(denial, "tool_name"))
        self._count(entry)
        self.failed, self.error, self.limit, self.permanent = False, "", False, False
        if entry.get("is_error") is True:
            self._failure(entry)
        else:
            self.say(text_in(entry, "result"))

    def _failure(self, entry: dict[str, Any]) -> None:
        status, reason = number_in(entry, "api_error_status"), text_in(entry, "terminal_reason")
        errors = [e for e in list_in(entry, "errors") if isinstance(e, str)]
        words = text_in(entry, "result") or "; ".join(errors) or text_in(entry, "subtype")
        self.fail(words if not reason.startswith("aborted") else f"interrupted: {words}")
        self.limit = status == 429
        no_key = words.startswith(_NO_KEY)
        self.permanent = status in PERMANENT_STATUS or reason in _PERMANENT_END or no_key
        if no_key:
            self.error += " (run `claude` once and log in, or set ANTHROPIC_API_KEY)"

    def _count(self, entry: dict[str, Any]) -> None:
        whole = object_in(entry, "modelUsage")
        self._whole = whole or self._whole
        since = entry.get("model_usage_since_last_result")
        if isinstance(since, dict):
            for model, usage in as_dict(since).items():
                _add(self._since.setdefault(_bare(model), {}), as_dict(usage))
        elif whole:
            self._all_tell_since = False
        models: dict[str, dict[str, int]] = {}
        if self._all_tell_since:
            models = self._since
        else:
            for model, usage in self._whole.items():
                _add(models.setdefault(_bare(model), {}), as_dict(usage))
        self.no_call = not models and not self._calls
        self.cost_usd = _cost(entry) if self._whole else None
        if models:
            self.model = max(models, key=lambda name: sum(models[name].values()))
            self.used = {"modelUsage": models}

    handlers: ClassVar[Mapping[str, Handle]] = {
        "system": system,
        "assistant": assistant,
        "user": user,
        "stream_event": event,
        "rate_limit_event": rate_limit,
        "result": result,
    }


def _bare(model: str) -> str:
    """``claude-opus-4-8[1m]`` is the model without its bracket."""
    return model.partition("[")[0]


def _add(sums: dict[str, int], usage: dict[str, Any]) -> None:
    for name in _PARTS:
        sums[name] = sums.get(name, 0) + number_in(usage, name)


def _cost(entry: dict[str, Any]) -> float | None:
    """The sum of what it says each model cost; a guess of its own ("unknown") is none."""
    each = [as_dict(u) for u in object_in(entry, "modelUsage").values()]
    costs = [u.get("costUSD") for u in each if u.get("costBasis") != "unknown"]
    known = [float(c) for c in costs if isinstance(c, int | float) and not isinstance(c, bool)]
    return sum(known) if len(known) == len(each) and each else None


def _folder(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("CLAUDE_CONFIG_DIR") or home / ".claude")


def transcript(folder: Path, session: str, since: int) -> dict[str, Any] | None:
    """What stands in the transcripts of a session and its subagents. One answer is several lines
    with one message id; a fork begins with its parent's lines, which are older."""
    calls: dict[str, tuple[str, dict[str, int]]] = {}
    if not is_session(session):
        return None
    patterns = (f"projects/*/{session}.jsonl", f"projects/*/{session}/subagents/agent-*.jsonl")
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        for entry in lines_of(path, LINES):
            message = object_in(entry, "message")
            usage, model = object_in(message, "usage"), text_in(message, "model")
            if entry.get("type") != "assistant" or not usage or model == "<synthetic>":
                continue
            if is_since(entry, since):
                name = text_in(message, "id")
                parts = calls.setdefault(name, (_bare(model), dict.fromkeys(_LIVE, 0)))[1]
                parts.update({part: max(parts[part], number_in(usage, part)) for part in _LIVE})
    models: dict[str, dict[str, int]] = {}
    for model, parts in calls.values():
        sums = models.setdefault(model, dict.fromkeys(_LIVE, 0))
        sums.update({part: sums[part] + parts[part] for part in _LIVE})
    return {"models": models} if models else None


_OWN = ("OTEL_LOGS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")


def _own_telemetry(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in _OWN)


def _telemetry(url: str) -> TelemetryOverlay:
    return TelemetryOverlay(
        {
            "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_LOGS_EXPORT_INTERVAL": "500",
        }
    )


def _prompt(text: str) -> str:
    """``/clear`` and its like are commands of its own, which make no call."""
    return f"The task:\n{text}" if text.lstrip().startswith("/") else text


def _command(request: Request) -> list[str]:
    return [
        *("-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
        *(("--model", request.model) if request.model else ()),
        *("--session-id", request.session),
    ]


AGENT = Agent(
    name="claude",
    program="claude",
    title="Claude Code",
    install="npm install -g @anthropic-ai/claude-code",
    cheap="haiku",
    capable="sonnet",
    serves=("haiku", "sonnet", "opus", "fable", "claude-*"),
    command=_command,
    stream=ClaudeStream,
    names_session=True,
    folder=_folder,
    transcript=transcript,
    telemetry=_telemetry,
    own_telemetry=_own_telemetry,
    prompt=_prompt,
    permissions={
        "read": (
            "--permission-mode=dontAsk",
            "--allowedTools=Read,Glob,Grep",
            "--disallowedTools=Edit,Write,NotebookEdit,Bash",
        ),
        "edit": ("--permission-mode=acceptEdits",),
        "all": ("--dangerously-skip-permissions",),
    },
    as_root="IS_SANDBOX",
    keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
    home="CLAUDE_CONFIG_DIR",
    environment={"CLAUDE_CODE_MAX_RETRIES": "2", "DISABLE_AUTOUPDATER": "1"},
    clocks=Clocks(first_s=300, silence_s=600),
)
