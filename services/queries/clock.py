"""What the bus thinks of the server's clock."""

from __future__ import annotations

from typing import Any

from projections import clock as fold
from projections.format import span
from projections.state import State
from projections.views import iso
from projections.windows import HOUR, HOURS_KEPT

WAY_OUT = "is the server's clock right now? then `asb policy clock confirm`"


def said(state: State) -> str:
    """How things stand, as a sentence."""
    meta = state.meta
    if not fold.doubted(state):
        return "the server's made no large step, or it was confirmed"
    left = HOURS_KEPT * HOUR - (meta.passed - meta.large_step_passed)
    return (
        f"it stepped by {step_text(meta.large_step)}, to {iso(meta.large_step_at)}; no use is "
        f"forgotten before it is confirmed, or has gone on for {span(left)}"
    )


def step_text(by: int) -> str:
    """A step with its sign: ``-20 min``, ``+26 h``."""
    return f"{'-' if by < 0 else '+'}{span(abs(by))}"


def view(state: State, now: int) -> dict[str, Any]:
    """``asb policy clock --json``."""
    meta, doubted = state.meta, fold.doubted(state)
    return {
        "as_of": meta.log_id,
        "at": iso(now),
        "confirmed": not doubted,
        "step_us": meta.large_step if doubted else 0,
        "stepped_at": iso(meta.large_step_at) if doubted else "",
    }
