"""What the log says about itself: that it went back, and that others wrote on it."""

from __future__ import annotations

from events.envelope import Event
from events.log import LogForeignEntries, LogTrimmed, LogWentBack
from projections.state import State, folds


@folds(LogWentBack)
def went_back(state: State, event: Event[LogWentBack]) -> None:
    state.meta.went_back = event.log_id
    state.meta.words_removed = ""  # what was taken out may be there again


@folds(LogTrimmed)
def trimmed(state: State, event: Event[LogTrimmed]) -> None:
    state.meta.trimmed, state.meta.trimmed_said = event.data.first, event.log_id


@folds(LogForeignEntries)
def foreign_entries(state: State, event: Event[LogForeignEntries]) -> None:
    payload = event.data
    meta = state.meta
    meta.foreign += max(0, payload.count)
    meta.foreign_id, meta.foreign_at, meta.foreign_said = payload.last, event.at, event.log_id
