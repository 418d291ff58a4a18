"""Settings that are amounts: as text they are read as on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from events import amounts

READERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("input", "cache_read", "cache_write", "output", "flat"), amounts.dollars),
    "amount": amounts.dollars,
    "plausible_dollars": amounts.dollars,
    "plausible_tokens": amounts.count,
    "threshold_percent": amounts.percent,
    "cache_read_weight_percent": amounts.percent,
}


def typed(value: Any, name: str) -> Any:
    """``value`` of the setting ``name`` with texts that stand for amounts as numbers: ``"500K"``.

    Raises ValueError for one that is none or can be read in two ways.
    """
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: typed(inner, key) for key, inner in items}
    if isinstance(value, list):
        return [typed(inner, name) for inner in cast("list[Any]", value)]
    read = READERS.get(name)
    if not isinstance(value, str) or read is None:
        return value
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
