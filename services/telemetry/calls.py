"""What agents' telemetry says of their calls to models: one record a call, three vendors' names.

Only what is named here is looked at: figures, ids and the model. Prompts, answers and whatever else
stands in a record are never taken in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from events.tokens import TokenParts, read

_SHOWN = 3  # reasons of rejected records that are named


class _Dialect(msgspec.Struct, frozen=True):
    """How one agent writes the record of a call. ``kind``: its ``event.kind``; ``parts``: its names
    of tokens, as the one reader of usage knows them; ``request``: what names a call, beside its
    session."""

    agent: str
    session: str
    parts: Mapping[str, str]
    request: tuple[str, ...]
    kind: str = ""


_CLAUDE = _Dialect(
    "claude",
    "session.id",
    {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cache_read_tokens": "cache_read_tokens",
        "cache_creation_tokens": "cache_creation_tokens",
    },
    ("event.timestamp", "event.sequence"),
)
_CODEX = _Dialect(
    "codex",
    "conversation.id",
    {
        "input_token_count": "input_tokens",
        "cached_token_count": "cached_input_tokens",
        "cache_write_token_count": "cache_write_input_tokens",
        "output_token_count": "output_tokens",
        "reasoning_token_count": "reasoning_output_tokens",
    },  # its ``tool_token_count`` is the total
    ("event.timestamp",),
    "response.completed",
)
_GEMINI = _Dialect(
    "gemini",
    "session.id",
    {
        "input_token_count": "input_token_count",
        "output_token_count": "output_token_count",
        "cached_content_token_count": "cached_content_token_count",
        "thoughts_token_count": "thoughts_token_count",
        "tool_token_count": "tool",
        "total_token_count": "total_token_count",
    },
    ("prompt_id", "event.timestamp"),
)
_DIALECTS = {
    "claude_code.api_request": _CLAUDE,
    "api_request": _CLAUDE,
    "codex.sse_event": _CODEX,
    "gemini_cli.api_response": _GEMINI,
}


class ApiCall(msgspec.Struct, frozen=True):
    """One call to a model. ``request`` names it, and is the same wherever it is told again;
    ``prompt`` names the one that it was made for ("": not told)."""

    agent: str
    session: str
    request: str
    model: str
    parts: TokenParts
    cost_usd: float | None = None
    prompt: str = ""


class Batch(msgspec.Struct, frozen=True):
    """The calls in one delivery; how many records told of one that cannot be counted, and why."""

    calls: tuple[ApiCall, ...] = ()
    rejected: int = 0
    reason: str = ""


def calls_of(body: Mapping[str, Any]) -> Batch:
    """The calls that a delivery of logs tells of. Raises ValueError where it is none."""
    if "resourceLogs" in body and not isinstance(body["resourceLogs"], list):
        raise ValueError("resourceLogs is no array")
    calls: list[ApiCall] = []
    wrong: list[str] = []
    for record in _records(body):
        try:
            call = _call_of(record)
        except ValueError as error:
            wrong.append(str(error))
        else:
            calls += [call] if call is not None else []
    shown = "; ".join(list(dict.fromkeys(wrong))[:_SHOWN])
    return Batch(tuple(calls), len(wrong), shown)


def _records(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in _objects(body, "resourceLogs"):
        for scope in _objects(resource, "scopeLogs"):
            yield from _objects(scope, "logRecords")


def _objects(holder: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    inner = holder.get(name)
    for entry in cast("list[Any]", inner) if isinstance(inner, list) else ():
        if isinstance(entry, dict):
            yield cast("dict[str, Any]", entry)


def _call_of(record: Mapping[str, Any]) -> ApiCall | None:
    """The call that a record tells of; None for a record of something else. Raises ValueError where
    its figures cannot be read."""
    fields = {str(a.get("key")): _value(a.get("value")) for a in _objects(record, "attributes")}
    name = fields.get("event.name") or _value(record.get("body"))
    dialect = _DIALECTS.get(name) if isinstance(name, str) else None
    if dialect is None or (dialect.kind and fields.get("event.kind") != dialect.kind):
        return None
    figures = {ours: fields[its] for its, ours in dialect.parts.items() if its in fields}
    if not figures:
        return None  # Codex writes each of them twice, once without figures
    session = _text(fields, dialect.session)
    model = _text(fields, "model").partition("[")[0]  # "[1m]" is a size of context
    reading = read(figures)
    if reading.usage is None:
        raise ValueError(f"{name}: {reading.flag or 'no tokens'}")
    request = _text(fields, "request_id") or ":".join(
        [session, *(_text(fields, part) for part in dialect.request), _moment(record)]
    )
    cost: Any = fields.get("cost_usd")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e6
    return ApiCall(
        dialect.agent,
        session,
        request,
        model,
        reading.usage,
        float(cost) if known else None,
        _text(fields, "prompt.id"),
    )


def _value(value: Any) -> Any:
    """A value of OTLP as a plain one; None for what is nested."""
    holder = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    for name in ("stringValue", "intValue", "doubleValue", "boolValue"):
        if name in holder:
            return holder[name]
    return None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _moment(record: Mapping[str, Any]) -> str:
    moments = (record.get("observedTimeUnixNano"), record.get("timeUnixNano"))
    return next((str(m) for m in moments if m not in (None, "", "0", 0)), "")
