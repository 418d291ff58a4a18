"""Figures in reports: tokens and what the agent says they cost. PURE."""

from __future__ import annotations

from typing import Any

import msgspec

from events import readings
from events.money import nanos_of
from events.tokens import NOTHING, Reading, read
from services.intake.schema import Rejected


def reading_of(raw: bytes, reported: Any) -> Reading:
    """What a report (``raw``, its ``usage`` being ``reported``) tells of tokens: there, else
    wherever one looks for it. Figures that cannot be read make it unknown and flagged."""
    by_model = b"odelUsage" in raw or b"odel_usage" in raw
    reading = NOTHING if by_model else read(reported)
    if reading.says_something or not (by_model or b"oken" in raw or b"sage" in raw):
        return reading
    return readings.find(msgspec.json.decode(raw, type=dict[str, Any])).reading


def own_cost(value: Any) -> int | None:
    """The agent's own cost figure in nano-dollars; None where it gave none."""
    if value is None:
        return None
    try:
        nanos = nanos_of(value)
    except ValueError as error:
        raise Rejected(f"cost_usd: {error}") from None
    if not 0 <= nanos <= 10**15:
        raise Rejected(f"cost_usd must be between 0 and a million dollars, not {str(value)[:40]}")
    return nanos


def own_cost_of_end(value: Any) -> tuple[int | None, str]:
    """The same of an attempt that ended, whose result is worth more than the figure: what cannot
    be read is flagged."""
    try:
        return own_cost(value), ""
    except Rejected:
        return None, "cost_usd: not an amount of dollars"
