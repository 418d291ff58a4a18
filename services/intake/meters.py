"""Several meters of one attempt: whose figure is charged, and how far the others are from it. PURE.

The agent's own result comes first, then its telemetry, its transcript, what its stream let be seen,
its progress documents. While an attempt runs its usage only rises, whoever tells of it; when it
ends the best meter's figure takes the place of a worse one's, up or down. The others are compared,
never added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from msgspec.structs import replace

from events.commands.attempts import ReportAttempt
from events.envelope import Event
from events.task import Charge
from events.tokens import TokenParts, read
from events.usage import UsageCompared, UsageCorrected
from projections import charges
from projections.records import TaskRecord
from services.intake.case import Case

DRIVER = "driver"
OTHERS = ("telemetry", "transcript", "stream")  # that a driver may tell in place of its own
_PARTS = TokenParts().__struct_fields__
METERS_MAX = 5  # that a report may name beside its own
BOUND_TOKENS, BOUND_PERCENT = 1_000, 5  # a difference beyond both is an alert


def name_of(given: str) -> str:
    """The meter of a report that ends an attempt."""
    return given if given in OTHERS else DRIVER


def taken_back(
    case: Case, task: TaskRecord, charged: Charge
) -> tuple[list[UsageCorrected], Charge]:
    """What a worse meter had charged too much, out of where it was charged, the newest first; and
    what is left of ``charged``, which may be below zero, for the end of the attempt."""
    tokens, nanos = min(0, charged.tokens), min(0, charged.nanos)
    if not tokens and not nanos:
        return [], charged
    parts: dict[str, Any] = {name: min(0, getattr(charged, name)) for name in _PARTS}
    rest = replace(
        charged,
        tokens=charged.tokens - tokens,
        nanos=charged.nanos - nanos,
        **{name: getattr(charged, name) - part for name, part in parts.items()},
    )
    corrections: list[UsageCorrected] = []
    changes, _, _ = charges.given_back(task.marks, tokens, nanos)
    for mark, back_tokens, back_nanos in changes:
        if not back_tokens and not back_nanos:
            continue
        correction = Charge(
            agent=charged.agent,
            model=mark.model,
            worker=charged.worker,
            project=charged.project,
            kind=charged.kind,
            tokens=back_tokens,
            nanos=back_nanos,
            book=case.state.policy.book,
            meter=charged.meter,
            window_at=mark.at,
            day_at=mark.day_at,
            **parts,
        )
        parts = dict.fromkeys(parts, 0)
        corrections.append(UsageCorrected(charged.agent, correction, task.id, task.attempt))
    return corrections, rest


def compared(
    case: Case, report: ReportAttempt, agent: str, usage: TokenParts | None
) -> Iterator[Event]:
    """How far each other meter in the report is from what is charged, ``usage``."""
    meters = report.meters
    if usage is None or not isinstance(meters, dict):
        return
    named = cast("dict[str, Any]", meters)
    for name, other in list(named.items())[:METERS_MAX]:
        if name in OTHERS and (reading := read(other)).usage is not None:
            yield comparison(case, report, agent, usage, name, reading.usage)


def comparison(
    case: Case,
    report: ReportAttempt,
    agent: str,
    usage: TokenParts,
    name: str,
    other: TokenParts,
) -> Event:
    """The event that says so."""
    weight = case.state.policy.cache_read_weight_percent
    tokens, against = usage.counted(weight), other.counted(weight)
    far = abs(against - tokens)
    payload = UsageCompared(
        agent,
        report.task,
        report.attempt,
        name_of(report.meter),
        tokens,
        name,
        against,
        alert=far > BOUND_TOKENS and 100 * far > BOUND_PERCENT * max(tokens, against),
    )
    event = case.event(payload)
    event.id = f"{case.entry.id}.{name}"
    return event
