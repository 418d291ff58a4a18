"""Amounts as people type them after an option."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import typer

Read = TypeVar("Read")


def typed(name: str, text: str, read: Callable[[str], Read]) -> Read:
    """What somebody typed for ``name``, read by one of `events.amounts`. Raises BadParameter."""
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}") from None


def number(value: float | None) -> float | None:
    """What somebody typed for a float, for `typer.Option`'s ``callback``: the parser's bounds let
    ``nan`` through. Raises BadParameter."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value
