"""Telemetry as the agents write it: records of our own making in the formats of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
SECRET_WORDS = "the prompt that nobody may keep"
MOMENT = "1795723705032512248"


def value(plain: Any) -> Json:
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}  # as the specification has it
    return {"doubleValue": plain} if isinstance(plain, float) else {"stringValue": plain}


def record(fields: Mapping[str, Any], body: str | None = None, nano: str = MOMENT) -> Json:
    attributes = [{"key": name, "value": value(plain)} for name, plain in fields.items()]
    made: Json = {"timeUnixNano": "0", "observedTimeUnixNano": nano, "attributes": attributes}
    return made if body is None else {**made, "body": {"stringValue": body}}


def delivery(*records: Json) -> Json:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": list(records)}]}]}


def claude(request: str = "req_1", model: str = "claude-opus-5-5", **more: Any) -> Json:
    return record({
        "event.name": "api_request", "session.id": "s1", "model": model, "request_id": request,
        "input_tokens": 10, "output_tokens": 40, "cache_read_tokens": 1000,
        "cache_creation_tokens": 100, "cost_usd": 0.01, "prompt": SECRET_WORDS, **more},
        "claude_code.api_request")  # fmt: skip


def codex(n: int = 1) -> list[Json]:
    """It writes each completed response twice, once without figures."""
    about = {"event.name": "codex.sse_event", "event.kind": "response.completed",
             "conversation.id": "c1", "model": "gpt-6.1-sol",
             "event.timestamp": f"2026-11-26T20:08:25.{n:03d}Z"}  # fmt: skip
    figures = {"input_token_count": "1000", "output_token_count": "50", "cached_token_count": 600,
               "cache_write_token_count": 0, "reasoning_token_count": 20,
               "tool_token_count": "1050"}  # fmt: skip
    return [record(about), record({**about, **figures}, nano=f"{MOMENT}{n}")]


def gemini(n: int = 1) -> Json:
    return record({
        "event.name": "gemini_cli.api_response", "session.id": "g1", "prompt_id": "g1",
        "model": "gemini-3.8-flash", "event.timestamp": f"2026-11-26T20:08:44.{n:03d}Z",
        "input_token_count": 900, "output_token_count": 30, "cached_content_token_count": 400,
        "thoughts_token_count": 10, "tool_token_count": 0, "total_token_count": 940,
        "response_text": SECRET_WORDS}, nano=f"{MOMENT}{n}")  # fmt: skip
