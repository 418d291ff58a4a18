"""Usage as programs tell it, brought to one form.

Vendors count differently: some give disjoint parts, some count cached tokens within the input.
The names say which it is::

    input_tokens + cache_read_tokens | cache_read_input_tokens      disjoint
    input_tokens including cached_input_tokens                      the cached ones are taken off
    prompt_tokens including prompt_tokens_details.cached_tokens     the same
    input_tokens including input_tokens_details.cached_tokens       the same
    promptTokenCount including cachedContentTokenCount              the same; thoughts are output
    total_tokens                                                    only where no part is told
"""

from __future__ import annotations

import math
from typing import Any, cast

import msgspec

from services.worker.task import Usage

_decode = msgspec.json.Decoder().decode
_OUTPUT = ("output_tokens", "completion_tokens", "completion")
_READ = ("cache_read_tokens", "cache_read_input_tokens")
_WRITE = ("cache_write_tokens", "cache_creation_input_tokens", "cache_write_input_tokens")


class Told(msgspec.Struct, frozen=True):
    """What the last line of an output tells; nothing, where it is no such line."""

    usage: Usage | None = None
    model: str = ""
    cost_usd: float | None = None


def told_by(output: bytes) -> Told:
    """Read the last non-empty line of ``output``. Anything but a JSON object with usage in it is
    just output, and so is one with impossible figures."""
    line = output.rstrip().rpartition(b"\n")[2].strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return Told()
    try:
        found = _object(_decode(line))
        inner = _object(found.get("usage")) or _object(found.get("usageMetadata"))
        usage = _usage(inner) or _usage(found)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Told()
    if usage is None:
        return Told()
    model = found.get("model") or inner.get("model")
    return Told(usage, model if isinstance(model, str) else "", _cost(found, inner))


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _cost(found: dict[str, Any], inner: dict[str, Any]) -> float | None:
    for value in (found.get("cost_usd"), found.get("total_cost_usd"), inner.get("cost_usd")):
        if isinstance(value, int | float) and not isinstance(value, bool):
            cost = float(value)
            if math.isfinite(cost) and cost >= 0:
                return cost
    return None


def _usage(raw: dict[str, Any]) -> Usage | None:
    if "promptTokenCount" in raw:
        return _gemini(raw)
    output = _count(raw, *_OUTPUT)
    read, write = _count(raw, *_READ), _count(raw, *_WRITE)
    fresh = _count(raw, "input_tokens")
    within = _count(raw, "cached_input_tokens")
    if within is None:
        within = _count(_object(raw.get("input_tokens_details")), "cached_tokens")
    if fresh is None:
        fresh = _count(raw, "prompt_tokens", "prompt")
        within = _count(_object(raw.get("prompt_tokens_details")), "cached_tokens")
    if within is not None and read is None:
        read = within
        fresh = None if fresh is None else max(0, fresh - within)
    if all(part is None for part in (fresh, output, read, write)):
        total = _count(raw, "total_tokens")
        return None if total is None else Usage(total_tokens=total)
    return Usage(fresh, output, read, write)


def _gemini(raw: dict[str, Any]) -> Usage:
    """Gemini's names: what tools were asked with is input, thoughts are output."""
    read = _count(raw, "cachedContentTokenCount") or 0
    asked = (_count(raw, "promptTokenCount") or 0) + (_count(raw, "toolUsePromptTokenCount") or 0)
    said = (_count(raw, "candidatesTokenCount") or 0) + (_count(raw, "thoughtsTokenCount") or 0)
    return Usage(max(0, asked - read), said, read, None)


def _count(raw: dict[str, Any], *names: str) -> int | None:
    """The first of ``names`` that is there. Raises ValueError for what is no count."""
    for name in names:
        value = raw.get(name)
        if value is not None and not (isinstance(value, str) and name in ("prompt", "completion")):
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}")
            return value
    return None
