"""Reading what programs of others write: fields that are there, of the right type, or nothing.
PURE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def object_in(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object under ``name``; an empty one where there is none."""
    return as_dict(entry.get(name))


def as_dict(value: Any) -> dict[str, Any]:
    """``value`` where it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_in(entry: Mapping[str, Any], name: str) -> list[Any]:
    """The array under ``name``; an empty one where there is none."""
    value = entry.get(name)
    return cast("list[Any]", value) if isinstance(value, list) else []


def text_in(entry: Mapping[str, Any], name: str) -> str:
    """The text under ``name``, "" where there is none."""
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def number_in(entry: Mapping[str, Any], name: str) -> int:
    """The whole number under ``name``, 0 where there is none."""
    value = entry.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
