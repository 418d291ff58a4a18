"""Which levels were already said, so that each is said once per window instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event
from projections.throttle import LEVELS

if TYPE_CHECKING:
    from projections.state import State


class Raised(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The window instance (its start, µs), the highest level said for it, and where that stands."""

    instance: int
    level: int
    log_id: str = ""


def key_of(kind: str, scope: str, unit: str, window: str) -> str:
    """What an alert is about: ``level`` or ``budget``, scope, unit, window."""
    return f"{kind}|{scope}|{unit}|{window}"


def raised(state: State, event: Event) -> None:
    d = event.data
    key = key_of(d.kind, d.scope, d.unit, d.window)
    state.undo.put(state.raised, key, Raised(d.instance, LEVELS.index(d.level), event.log_id))
