"""A step of the server's clock is told once, whoever of several hosts notices it first. PURE."""

from __future__ import annotations

from events.clock import ClockStepped
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "clock"
STEP_US = 10_000_000  # timers may be off by less
SAME_US = 60_000_000  # two hosts notice one step within this, or within half of the step


def decide(state: State, now: int, inputs: Inputs) -> Decisions:
    """The step that this host measured, unless the log tells of it; or the one that the log shows
    to whoever was not there: its last event lies in the future."""
    meta, (by, noticed) = state.meta, inputs.step
    if abs(by) < STEP_US:
        by, noticed = min(0, now - meta.at), now
    if abs(by) < STEP_US or not meta.events:
        return
    # Another step of the same size would be noticed at another time by at least that size.
    same = abs(by - meta.step_by) < STEP_US
    if not (same and abs(noticed - meta.step_at) < max(SAME_US, abs(by) // 2)):
        yield decided(ClockStepped(by, noticed), BY)


DECIDER = Decider(BY, decide, frozenset({ClockStepped}))
