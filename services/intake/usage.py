"""ReportedFigures in reports: tokens and what the agent says they cost. PURE."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from events import readings
from events.commands.attempts import RecordUsage, ReportAttempt
from events.envelope import Reported
from events.money import nanos_of
from events.tokens import NOTHING, Reading, TokenParts, read
from services.intake import schema
from services.intake.schema import Rejected


def reading_of(raw: bytes, reported: Any) -> Reading:
    """What a report (``raw``, its ``usage`` being ``reported``) tells of tokens: there, else
    wherever one looks for it. ReportedFigures that cannot be read make it unknown and flagged."""
    by_model = b"odelUsage" in raw or b"odel_usage" in raw
    reading = NOTHING if by_model else read(reported)
    if reading.says_something or not (by_model or b"oken" in raw or b"sage" in raw):
        return reading
    return readings.find(msgspec.json.decode(raw, type=dict[str, Any])).reading


class ReportedFigures(NamedTuple):
    """What a report tells of an attempt: tokens, the agent's own cost in nano-dollars, and what of
    both cannot be read; ``model`` is the one it used, where it names one."""

    reading: Reading
    own_cost: int | None
    flag: str
    model: str

    def numbers(self, command: ReportAttempt, result_bytes: int = 0) -> Reported | None:
        """The numbers as they are kept; None where it told none. ``result_bytes``: the length of
        a result that was cut."""
        parts = self.reading.parts or TokenParts()
        duration = command.duration_ms
        numbers = Reported(
            parts.input_tokens,
            parts.output_tokens,
            parts.cache_read_tokens,
            parts.cache_write_tokens,
            self.reading.total or 0,
            self.own_cost,
            duration if type(duration) is int else None,
            result_bytes,
            result_bytes > 0,
            _calls(command.calls),
        )
        return numbers if numbers != NO_NUMBERS else None


NO_NUMBERS = Reported()
CALLS_MAX = 1_000_000  # that one attempt may have made


def _calls(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= CALLS_MAX else None


def of_end(raw: bytes, command: ReportAttempt) -> ReportedFigures:
    """The figures of an attempt that ended, whose result is worth more than they are: what cannot
    be read is flagged."""
    reading, flags = reading_of(raw, command.usage), list[str]()
    cost = None
    try:
        cost = own_cost(command.cost_usd)
    except Rejected:
        flags.append("cost_usd: not an amount of dollars")
    model = command.model
    if model and not schema.is_label(model):
        model = ""
        flags.append("model: not a name")
    return ReportedFigures(reading, cost, "; ".join(filter(None, (reading.flag, *flags))), model)


def of_report(raw: bytes, command: RecordUsage) -> ReportedFigures:
    """The figures of a report of usage. Raises Rejected where it tells none that can be read."""
    reading = reading_of(raw, command.usage)
    if reading.usage is None:
        raise Rejected(
            reading.flag or "no tokens: give input_tokens, output_tokens, … or total_tokens"
        )
    return ReportedFigures(reading, own_cost(command.cost_usd), reading.flag, command.model)


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
