"""Amounts as people type them after an option."""

from __future__ import annotations

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
