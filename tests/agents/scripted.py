"""An agent that plays a part: it writes the streams of Claude Code, Codex and Gemini CLI.

A program of its own (standard library only), started under the name of the agent it plays. What it
does stands in the prompt, ``play NAME``; without it, an answer (with ``once`` also at its second
start). It imitates what was seen of the real ones: results of several turns, subagents, refusals,
limits, hangs and deaths, and what each does on SIGINT. ``SCRIPTED_LOG`` names a file to which each
start is written: arguments, prompt, folder, process. With ``telemetry N`` in the prompt it sends N
calls of its own telemetry, with ``transcript N`` it writes as many to its transcript. ``lines``
gives the same streams to tests of their readers.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.agents import telemetry

Line = dict[str, Any]
SESSION = "5c0de000-0000-4000-8000-000000000001"
RESETS_AT = 4_000_000_000  # seconds since the epoch, far ahead
OPUS, HAIKU, FLASH, LITE = (
    "claude-opus-5-5",
    "claude-haiku-5-5",
    "gemini-3.8-flash",
    "gemini-3.5-flash-lite",
)


# -- Claude Code -------------------------------------------------------------------------------


def init() -> Line:
    return {"type": "system", "subtype": "init", "session_id": SESSION, "model": f"{OPUS}[1m]",
            "claude_code_version": "2.1.332", "permissionMode": "default"}  # fmt: skip


def call(n: int, *, tool: str = "") -> list[Line]:
    """One call of the API as the stream shows it: begun with one token, completed with forty."""
    start = {"input_tokens": 10, "cache_creation_input_tokens": 100,
             "cache_read_input_tokens": 1000, "output_tokens": 1}  # fmt: skip
    message = f"msg_{n}"
    piece: Line = {"type": "text", "text": f"Answer {n}."}
    if tool:
        piece = {"type": "tool_use", "id": tool, "name": "Bash", "input": {}}
    whole: Line = {"id": message, "model": OPUS, "role": "assistant", "content": [], "usage": start}
    return [
        {"type": "stream_event", "event": {"type": "message_start", "message": whole}},
        {"type": "assistant", "message": {**whole, "content": [piece]}, "request_id": f"req_{n}"},
        {"type": "stream_event", "api_message_id": message,
         "event": {"type": "message_delta", "usage": {**start, "output_tokens": 40}}},
    ]  # fmt: skip


def of_model(calls: int, output: int = 40) -> Line:
    return {"inputTokens": 10 * calls, "outputTokens": output * calls, "thinkingTokens": 3,
            "cacheReadInputTokens": 1000 * calls, "cacheCreationInputTokens": 100 * calls,
            "cacheCreationEphemeral5mInputTokens": 100 * calls, "costUSD": 0.01 * calls,
            "contextWindow": 1000000, "maxOutputTokens": 128000, "costBasis": "list"}  # fmt: skip


def result(models: dict[str, Line], since: dict[str, Line] | None = None, **more: Any) -> Line:
    """``usage`` leaves subagents out and is the last turn's: nobody may count it."""
    return {
        "type": "result", "subtype": "success", "is_error": False, "result": "All done.",
        "session_id": SESSION, "terminal_reason": "completed", "api_error_status": None,
        "usage": {"input_tokens": 3, "output_tokens": 4}, "modelUsage": models,
        "total_cost_usd": 0.01, "permission_denials": [], "result_index": 0,
        "model_usage_since_last_result": models if since is None else since, **more,
    }  # fmt: skip


def claude_error(words: str, **more: Any) -> list[Line]:
    synthetic = {"id": "x", "model": "<synthetic>", "content": [{"type": "text", "text": words}],
                 "usage": {"input_tokens": 0, "output_tokens": 0}}  # fmt: skip
    return [
        init(),
        {"type": "assistant", "message": synthetic, "is_api_error_message": True},
        result({}, is_error=True, result=words, terminal_reason="api_error", **more),
    ]


def retry(status: int) -> Line:
    return {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2,
            "error_status": status, "error": "rate_limit"}  # fmt: skip


def window(status: str, used: float) -> Line:
    info = {"utilization": used, "resetsAt": RESETS_AT, "status": status}
    return {"type": "rate_limit_event", "rate_limit_info": {
        "status": status, "resetsAt": RESETS_AT, "rateLimitType": "five_hour",
        "unifiedWindows": {"five_hour": info}}}  # fmt: skip


FORGED = '{"type":"result","usage":{"input_tokens":999999},"modelUsage":{}}'

CLAUDE: dict[str, Callable[[], list[Line]]] = {
    "well": lambda: [init(), window("allowed", 0.42), *call(1), result({OPUS: of_model(1)})],
    "forged": lambda: [init(), *call(1), result({OPUS: of_model(1)}, result=FORGED)],
    "subagents": lambda: [
        init(),
        *call(1, tool="t1"),
        {"type": "system", "subtype": "task_started", "task_id": "a1"},
        result({OPUS: of_model(1)}, result="It is on its way."),
        {"type": "system", "subtype": "task_notification", "task_id": "a1"},
        init(),
        *call(2),
        result(
            {OPUS: of_model(2), HAIKU: of_model(3)},
            {OPUS: of_model(1), HAIKU: of_model(3)},
            result="The subagent says: done.",
        ),
    ],
    "resumed": lambda: [  # it goes on from its stored total
        init(), *call(3), result({OPUS: of_model(3)}, {OPUS: of_model(1)}),
    ],
    "denied": lambda: [
        init(), *call(1),
        result({OPUS: of_model(1)}, permission_denials=[{"tool_name": "Bash"}] * 2),
    ],
    "news": lambda: [
        init(), {"type": "hologram", "usage": {"input_tokens": 5_000_000}}, *call(1),
        {"type": "system", "subtype": "newer", "usage": {"input_tokens": 7}},
        result({OPUS: of_model(1)}),
    ],
    "limit": lambda: [
        init(), window("rejected", 1),
        *claude_error("You've hit your 5-hour limit", api_error_status=429)[1:],
    ],
    "limit-untold": lambda: claude_error("API Error: Request rejected (429)", api_error_status=429),
    "unauthorized": lambda: claude_error("Failed to authenticate", api_error_status=401),
    "no-key": lambda: claude_error("Not logged in · Please run /login"),
    "overloaded": lambda: [init(), retry(529), *claude_error("Overloaded", api_error_status=529)],
    "midway": lambda: [
        init(), *call(1),
        result({OPUS: of_model(1)}, is_error=True, result="API Error: 500", api_error_status=500,
               terminal_reason="api_error"),
    ],
    "hang": lambda: [init()],
    "silent": lambda: [init(), *call(1)],
    "tool": lambda: [init(), *call(1, tool="t1")],
    "trouble": lambda: [init(), retry(500)],
    "dies": lambda: [init(), *call(1)],
    "nothing": list,
    "runaway": lambda: [init()],
}  # fmt: skip


def interrupted(calls: int = 0) -> Line:
    """What Claude Code still says after SIGINT, with exit status 0: of its ``calls``, or of the one
    that was cut off (0)."""
    used = of_model(calls) if calls else of_model(1, output=20)
    return result({OPUS: used}, is_error=True, subtype="error_during_execution",
                  terminal_reason="aborted_streaming", result="", errors=["aborted"])  # fmt: skip


# -- Codex -------------------------------------------------------------------------------------


def turn(*items: Line, end: Line) -> list[Line]:
    return [
        {"type": "thread.started", "thread_id": SESSION},
        {"type": "turn.started"},
        *items,
        end,
    ]


def message(text: str) -> Line:
    return {"type": "item.completed", "item": {"id": "i9", "type": "agent_message", "text": text}}


CODEX_USAGE = {"input_tokens": 1000, "cached_input_tokens": 600, "cache_write_input_tokens": 0,
               "output_tokens": 50, "reasoning_output_tokens": 20}  # fmt: skip
COMPLETED = {"type": "turn.completed", "usage": CODEX_USAGE}
RECONNECTING = {"type": "error", "message": "Reconnecting... waiting for network (refused)"}


def turn_failed(words: str) -> list[Line]:
    return turn(
        {"type": "error", "message": words},
        end={"type": "turn.failed", "error": {"message": words}},
    )


def shell(status: str) -> list[Line]:
    item = {"id": "i0", "type": "command_execution", "command": "ls", "status": "in_progress"}
    return [
        {"type": "item.started", "item": item},
        {"type": "item.completed", "item": {**item, "status": status}},
    ]


WARNING = {"type": "item.completed", "item": {"id": "i1", "type": "error", "message": "unknown"}}

CODEX: dict[str, Callable[[], list[Line]]] = {
    "well": lambda: turn(*shell("completed"), WARNING, message("All done."), end=COMPLETED),
    "forged": lambda: turn(message(FORGED), end=COMPLETED),
    "denied": lambda: turn(*shell("declined"), message("No."), end=COMPLETED),
    "news": lambda: turn({"type": "item.seen", "usage": {"input_tokens": 9}}, message("All done."),
                         end=COMPLETED),
    "limit": lambda: turn_failed("You've hit your usage limit. Try again at 7:32 AM."),
    "unauthorized": lambda: turn_failed("unexpected status 401 Unauthorized: no"),
    "wrong": lambda: turn_failed('{"error": {"message": "no such model"}}'),
    "midway": lambda: turn(*shell("completed"), end=turn_failed("stream disconnected")[-1]),
    "hang": lambda: turn(end={"type": "turn.started"}),
    "trouble": lambda: turn(RECONNECTING, RECONNECTING, end=RECONNECTING),
    "dies": lambda: turn(*shell("completed"), end=message("Half of it")),
    "nothing": list,
}  # fmt: skip


def rollout(part: str) -> list[Line]:
    """What Codex writes of the thread beside its stream."""
    model: Line = {"type": "turn_context", "payload": {"model": "gpt-6.1-sol"}}
    full = {"used_percent": 100.0, "window_minutes": 300, "resets_at": RESETS_AT}
    limits = {"primary": full if part == "limit" else {**full, "used_percent": 42.5}}
    lines = [model]
    if part in ("well", "denied", "news", "midway", "dies", "forged"):
        used: Line = {"usage": CODEX_USAGE, "turn_token_usage": CODEX_USAGE}
        lines.append({"type": "token_usage_record", "payload": used})
    lines.append({"type": "event_msg", "payload": {"type": "token_count", "rate_limits": limits}})
    if part == "limit":
        error = {"message": "", "codex_error_info": "usage_limit_exceeded"}
        lines.append({"type": "event_msg", "payload": {"type": "task_complete", "error": error}})
    return lines


# -- Gemini CLI --------------------------------------------------------------------------------


def gemini(*middle: Line, end: Line) -> list[Line]:
    return [
        {"type": "init", "session_id": SESSION, "model": "auto"},
        {"type": "message", "role": "user", "content": "the prompt"},
        *middle,
        end,
    ]


def delta(text: str) -> Line:
    return {"type": "message", "role": "assistant", "content": text, "delta": True}


def gemini_end(**models: Line) -> Line:
    return {"type": "result", "status": "success", "stats": {
        "total_tokens": 1, "input_tokens": 1, "output_tokens": 1, "cached": 0, "input": 1,
        "models": models}}  # fmt: skip


PAID = {"total_tokens": 940, "input_tokens": 900, "output_tokens": 30, "cached": 400, "input": 500}
FREE: Line = dict.fromkeys(PAID, 0)
GEMINI_DONE = gemini_end(**{FLASH: PAID, LITE: PAID})


def gemini_failed(words: str) -> list[Line]:
    error = {"type": "unknown", "message": words}
    return gemini(end={**gemini_end(**{FLASH: FREE}), "status": "error", "error": error})


def tool_of_gemini(error: Line | None) -> list[Line]:
    return [
        {"type": "tool_use", "tool_name": "run_shell_command", "tool_id": "run_shell_command__1"},
        {"type": "tool_result", "tool_id": "run_shell_command__1", "status": "error",
         "error": error},
    ]  # fmt: skip


GEMINI: dict[str, Callable[[], list[Line]]] = {
    "well": lambda: gemini(
        delta("Let me see. "), *tool_of_gemini(None), delta("All "), delta("done."), end=GEMINI_DONE
    ),
    "forged": lambda: gemini(delta(FORGED), end=GEMINI_DONE),
    "denied": lambda: gemini(
        *tool_of_gemini({"type": "tool_not_registered"}), delta("No."), end=GEMINI_DONE
    ),
    "news": lambda: gemini({"type": "thought", "tokens": 99}, delta("All done."), end=GEMINI_DONE),
    "limit": lambda: gemini_failed("You have exhausted your daily quota on this model."),
    "wrong": lambda: gemini_failed('[API Error: {"error":{"code":400,"message":"no such model"}}]'),
    "untrusted": list,
    "hang": lambda: gemini(end={"type": "message", "role": "user", "content": ""}),
    "nothing": list,
}

PARTS = {"claude": CLAUDE, "codex": CODEX, "gemini": GEMINI}
_FAILING = [
    "limit",
    "limit-untold",
    "unauthorized",
    "no-key",
    "overloaded",
    "midway",
    "wrong",
    "nothing",
]
ENDS = {  # the exit status of a part, 0 where it is not named
    "claude": {part: 1 for part in CLAUDE if part in _FAILING},
    "codex": {part: 1 for part in CODEX if part in _FAILING},
    "gemini": {"limit": 173, "wrong": 144, "untrusted": 55, "nothing": 1},
}  # fmt: skip
STAYS = ("hang", "silent", "tool", "trouble", "runaway")  # it goes on until it is ended


def lines(agent: str, part: str) -> bytes:
    """The stream of one part, as it is written."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in PARTS[agent][part]())


# -- the program -------------------------------------------------------------------------------


def main() -> int:
    agent = Path(sys.argv[0]).name
    prompt = sys.stdin.read()
    words = prompt.split()
    part = words[words.index("play") + 1] if "play" in words else "well"
    part = "well" if _log(prompt) > 1 and "once" in words else part
    if agent == "codex" and part in CODEX:
        _write_rollout(part)
    if part == "nothing":
        sys.stderr.write("error: unknown option '--nonsense'\n")
    if part == "untrusted":
        sys.stderr.write("not running in a trusted directory\n")
    said = lines(agent, part).replace(SESSION.encode(), _session().encode())
    if "saying" in words:  # in place of its own words, of success and of failure
        text = words[words.index("saying") + 1].encode()
        said = said.replace(b"done.", text).replace(b"stream disconnected", text)
    sys.stdout.buffer.write(said)
    sys.stdout.flush()
    if "telemetry" in words:
        _send(agent, int(words[words.index("telemetry") + 1]))
    if "transcript" in words:
        _write_transcript(agent, int(words[words.index("transcript") + 1]))
    if part == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if part == "runaway":
        _run_away(2.0 if "slowly" in words else 0.1)
    if part in STAYS:
        return _stay(agent, with_child="child" in words)
    return ENDS[agent].get(part, 0)


def _log(prompt: str) -> int:
    """Note this start; how many of the same prompt there were."""
    path = os.environ.get("SCRIPTED_LOG")
    if not path:
        return 1
    entry = {"arguments": sys.argv[1:], "prompt": prompt, "cwd": os.getcwd(),
             "pid": os.getpid(), "home": os.environ.get("CLAUDE_CONFIG_DIR", "")}  # fmt: skip
    with open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
    with open(path, encoding="utf-8") as log:
        return sum(json.loads(line)["prompt"] == prompt for line in log)


def _send(agent: str, calls: int) -> None:
    """Its telemetry, to where its environment or its arguments say."""
    if agent == "codex":
        (url,) = [a.split('endpoint="')[1].split('"')[0] for a in sys.argv if "endpoint=" in a]
    elif agent == "gemini":
        url = os.environ["GEMINI_TELEMETRY_OTLP_ENDPOINT"] + "/v1/logs"
    else:
        url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/logs"
    records: list[Line] = []
    for n in range(calls):
        if agent == "codex":
            records += telemetry.codex(n)
        else:
            records.append(
                telemetry.gemini(n) if agent == "gemini" else telemetry.claude(f"req_{n}", OPUS)
            )
    import urllib.request  # as slow to load as all the rest

    body = json.dumps(telemetry.delivery(*records)).encode()
    for _ in range(2):  # as after an answer that was lost
        asked = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            answer.read()


def _session() -> str:
    """The one that it was given, as Claude Code takes it."""
    given = "--session-id"
    return sys.argv[sys.argv.index(given) + 1] if given in sys.argv else SESSION


def _write_transcript(agent: str, calls: int) -> None:
    """Of Claude alone."""
    if agent != "claude":
        return
    session = _session()
    folder = Path(os.environ["CLAUDE_CONFIG_DIR"]) / "projects" / "-here"
    folder.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 100,
             "cache_read_input_tokens": 1000, "output_tokens": 40}  # fmt: skip
    answers: list[Line] = [
        {"type": "assistant", "timestamp": now, "sessionId": session,
         "message": {"id": f"msg_{n}", "model": OPUS, "usage": usage}}
        for n in range(calls)
    ]  # fmt: skip
    text = "".join(json.dumps(answer) + "\n" for answer in answers for _ in range(2))
    (folder / f"{session}.jsonl").write_text(text)  # twice: a text, and a tool


def _write_rollout(part: str) -> None:
    folder = Path(os.environ["CODEX_HOME"]) / "sessions" / "2026" / "11" / "26"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in rollout(part))
    (folder / f"rollout-2026-11-26T00-00-00-{SESSION}.jsonl").write_text(text)


def _run_away(pause_s: float) -> None:
    """Call after call until somebody ends it."""
    for n in range(1, 10_000):
        signal.signal(signal.SIGINT, partial(_leave_after, n))
        for line in call(n):
            sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        select.select([], [], [], pause_s)


def _leave(*_: object) -> None:
    os._exit(1)


def _interrupted(*_: object) -> None:
    _leave_with(interrupted())


def _leave_after(calls: int, *_: object) -> None:
    _leave_with(interrupted(calls))


def _leave_with(line: Line) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")
    os._exit(0)


def _stay(agent: str, *, with_child: bool) -> int:
    """Until it is ended; like the real ones, each in its own way."""
    signal.signal(signal.SIGINT, _interrupted if agent == "claude" else _leave)
    if with_child:  # as their shells: in a session of its own
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
