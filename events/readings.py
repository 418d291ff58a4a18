"""Where usage stands in what programs write: their output, reports, progress documents. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from events.tokens import NOTHING, Reading, by_model, is_token_name, plain, read

_HOLDERS = ("tokens_used", "token_usage", "usage", "usage_metadata", "tokens", "stats")
_MAP = "model_usage"
_COSTS = ("total_cost_usd", "cost_usd")


class Report(msgspec.Struct, frozen=True, gc=False):
    """Usage found in an object: the verdict, the model and the cost in dollars the object names
    beside it (as written), and ``raw``, what of the object was read: ``read(raw)`` gives the same
    verdict."""

    reading: Reading = NOTHING
    model: str = ""
    cost_usd: int | float | str | None = None
    raw: Any = None


def find(reported: Mapping[str, Any]) -> Report:
    """The usage in an object that holds it: under one of the usual names, else in flat fields
    whose names say that they are tokens."""
    names = {plain(given): given for given in reported}
    maps = {names[_MAP]: reported[names[_MAP]]} if _MAP in names else {}
    for name in _HOLDERS:
        inner: Any = reported[names[name]] if name in names else None
        if inner is None or (name == "stats" and not _of_tokens(inner)):
            continue
        for merged in _layers(inner, maps):
            reading = read(merged)
            if reading.says_something:
                return _report(reading, reported, merged)
    flat = {given: value for given, value in reported.items() if is_token_name(given, value)} | maps
    reading = read(flat)
    return _report(reading, reported, flat) if reading.says_something else Report()


def _layers(inner: Any, maps: dict[str, Any]) -> Iterator[Any]:
    """What stands under a name of usage; and, where a whole object was put there, its usage."""
    if not isinstance(inner, dict):
        yield inner
        return
    entry = cast("dict[str, Any]", inner)
    yield {**maps, **entry}
    if isinstance(entry.get("usage"), dict):
        yield {**maps, **entry["usage"]}


def _of_tokens(stats: object) -> bool:
    """Whether statistics are some of tokens: other programs count other things there."""
    if not isinstance(stats, dict):
        return False
    inner = cast("dict[str, Any]", stats)
    return by_model(inner) is not None or any(is_token_name(n, v) for n, v in inner.items())


def _report(reading: Reading, reported: Mapping[str, Any], raw: Any) -> Report:
    beside = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    named = (beside.get("model"), reported.get("model"))
    model = next((name for name in named if isinstance(name, str) and name), "")
    if not model and len(reading.models) == 1:
        model = reading.models[0][0]
    costs = [source.get(name) for name in _COSTS for source in (reported, beside)]
    figures = [c for c in costs if isinstance(c, int | float | str) and not isinstance(c, bool)]
    return Report(reading, model, figures[0] if figures else None, raw)
