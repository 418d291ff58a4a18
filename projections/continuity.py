"""What the log says about itself: that it went back, and that others wrote on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.envelope import Event
from events.log import LogForeignEntries, LogTrimmed, LogWentBack

if TYPE_CHECKING:
    from projections.state import State


def went_back(state: State, event: Event) -> None:
    assert isinstance(event.data, LogWentBack)
    state.meta.went_back = event.log_id


def trimmed(state: State, event: Event) -> None:
    assert isinstance(event.data, LogTrimmed)
    state.meta.trimmed, state.meta.trimmed_said = event.data.first, event.log_id


def foreign_entries(state: State, event: Event) -> None:
    payload = event.data
    assert isinstance(payload, LogForeignEntries)
    meta = state.meta
    meta.foreign += max(0, payload.count)
    meta.foreign_id, meta.foreign_at, meta.foreign_said = payload.last, event.at, event.log_id
