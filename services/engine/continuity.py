"""What the log has to say about itself, decided once: it went back; others wrote on it. PURE."""

from __future__ import annotations

from events.log import START, LogForeignEntries, LogTrimmed, LogWentBack, after
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "continuity"
QUIET_US = 3_600_000_000  # foreign entries are told of once an hour: whoever writes them may go on


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """One event per loss, whoever of several hosts sees it first, and one for foreign entries."""
    meta, lost = state.meta, inputs.past_lost
    if lost is not None and not (meta.went_back and after(meta.went_back, lost.said)):
        yield decided(LogWentBack(lost.was, lost.now), BY)
    if inputs.trimmed and inputs.trimmed != meta.trimmed:
        yield decided(LogTrimmed(inputs.trimmed), BY)
    if not inputs.foreign or (meta.foreign_at and abs(now - meta.foreign_at) < QUIET_US):
        return
    reported = meta.foreign_id or START
    news = [place for place in inputs.foreign if after(place, reported)]
    if news:
        yield decided(LogForeignEntries(len(news), news[0], news[-1]), BY)


DECIDER = Decider(BY, decide, frozenset({LogWentBack, LogTrimmed, LogForeignEntries}))
