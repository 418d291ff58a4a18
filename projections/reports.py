"""Which report of which day was issued last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.envelope import Event

if TYPE_CHECKING:
    from projections.state import State


def issued(state: State, event: Event) -> None:
    state.undo.put(state.reports, event.data.date, event.data.version)
