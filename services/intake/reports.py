"""What workers and agents report: ends of attempts, usage. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from events.document import moment
from events.envelope import Event
from events.task import (
    AttemptEnd,
    Booking,
    TaskCancelled,
    TaskCompleted,
    TaskDelivered,
    TaskFailed,
    TaskStarted,
)
from events.tokens import Usage
from events.usage import UsageCorrected, UsageRecorded
from projections.tasks import RUNNING, PastAttempt, Task
from services import settle
from services.intake import shapes, torn, usage
from services.intake.case import Case
from services.intake.shapes import Bad
from services.turn import Refused

_told, _check_speaks_for = Case.told, Case.check_speaks_for

# -- attempts --------------------------------------------------------------------------------


class ReportIn(msgspec.Struct, gc=False):
    """``task.started|completed|failed|cancelled`` as workers write them."""

    task: str
    attempt: int
    session: str
    result: Any = None
    error: str = ""
    reason: str = ""
    retryable: bool = True
    started: bool = True
    usage: Any = None
    model: str = ""
    cost_usd: Any = None


_report = msgspec.json.Decoder(ReportIn)


def _current(case: Case, told: ReportIn) -> Task | None:
    """The task, if ``told`` is about the attempt that runs now."""
    task = case.state.tasks.get(told.task)
    if (
        task is not None
        and task.status in RUNNING
        and task.attempt == told.attempt
        and task.session == told.session
    ):
        _check_speaks_for(case, task.worker)
        return task
    return None


def _past(case: Case, told: ReportIn) -> PastAttempt | None:
    """The ended attempt ``told`` is about, if its worker had not spoken yet; None for a repeat."""
    state = case.state
    record = state.tasks.get(told.task) or state.outcomes.get(told.task)
    if record is None:
        if told.task in case.known.ended_tasks:
            return None
        raise Bad(torn.unknown(told.task))
    if told.attempt > record.attempt or told.attempt < 1:
        raise Bad(f"task {told.task[:80]!r} has no attempt {told.attempt}")
    for past in record.past:
        spoke = past.reported or past.told
        if past.attempt == told.attempt and past.session == told.session and not spoke:
            _check_speaks_for(case, past.worker)
            return past
    return None


def _stale(case: Case, told: ReportIn, make: type[AttemptEnd]) -> Iterable[Event | Refused]:
    if torn.is_lost(case, told.task):
        yield from _torn(case, told)
        return
    past = _past(case, told)
    if past is not None:
        reading = usage.reading_of(case.raw, told.usage)
        booked = None
        if reading.usage is not None:
            booked = settle.late(case.state, past, reading.usage)
            booked.flag = reading.flag
        yield _told(case, make(told.task, told.attempt, told.session, True, booked))


def _torn(case: Case, told: ReportIn) -> Iterable[Event | Refused]:
    """The usage of a result whose task the log lost is charged as foreign work, once; the rest is a
    dead letter."""
    if torn.is_repeat(case, told):
        return
    reading = usage.reading_of(case.raw, told.usage)
    if reading.usage is None:
        raise Bad(torn.unknown(told.task))
    cost, _ = usage.own_cost_of_end(told.cost_usd)
    name, payload = torn.charged(case, told, reading, cost)
    _check_speaks_for(case, name)
    yield _told(case, payload)
    error = f"{torn.unknown(told.task)} to this log; its usage was charged as foreign work"
    yield Refused(case.entry, error)


def _booked(case: Case, task: Task, told: ReportIn) -> Booking:
    reading = usage.reading_of(case.raw, told.usage)
    if not told.started and reading.usage is None and not task.started_at and task.used is None:
        return settle.unstarted(task)  # the worker says it never began: the hold is released
    cost, flag = usage.own_cost_of_end(told.cost_usd)
    booked = settle.settled(case.state, task, reading, model=told.model, own_cost=cost)
    booked.flag = "; ".join(filter(None, (reading.flag, flag)))
    return booked


def delivered(case: Case) -> Iterable[Event]:
    told: ReportIn = shapes.decode(case.raw, _report)
    if _current(case, told):
        yield _told(case, TaskDelivered(told.task, told.attempt, told.session))


def started(case: Case) -> Iterable[Event]:
    told: ReportIn = shapes.decode(case.raw, _report)
    task = _current(case, told)
    if task is None:
        _past(case, told)
    elif not task.started_at:
        yield _told(case, TaskStarted(told.task, told.attempt, told.session))


def completed(case: Case) -> Iterable[Event | Refused]:
    told: ReportIn = shapes.decode(case.raw, _report)
    _shorten_result(case, told)
    task = _current(case, told)
    if task is None:
        yield from _stale(case, told, TaskCompleted)
        return
    booked = _booked(case, task, told)
    yield _told(case, TaskCompleted(told.task, told.attempt, told.session, False, booked))


def _shorten_result(case: Case, told: ReportIn) -> None:
    """A result that is too long is cut rather than refused: the work was done."""
    most = case.defaults.result_max_bytes
    if len(case.raw) <= most:
        return
    text = (
        told.result if isinstance(told.result, str) else msgspec.json.encode(told.result).decode()
    )
    kept = text.encode()[: most - 1024].decode(errors="ignore")
    data: dict[str, Any] = msgspec.json.decode(case.raw)
    case.raw = msgspec.json.encode(
        {**data, "result": kept, "result_bytes": len(text.encode()), "truncated": True}
    )
    if len(case.raw) > 2 * most:
        raise Bad(f"the report has {len(case.raw):,} bytes beside its result; at most {most:,}")


def failed(case: Case) -> Iterable[Event | Refused]:
    told: ReportIn = shapes.decode(case.raw, _report)
    _shorten_result(case, told)
    task = _current(case, told)
    if task is None:
        yield from _stale(case, told, TaskFailed)
        return
    booked = _booked(case, task, told)
    if task.cancelling:
        yield _told(
            case,
            TaskCancelled(told.task, told.attempt, told.session, False, booked, told.error[:500]),
        )
        return
    yield _told(
        case,
        TaskFailed(
            told.task,
            told.attempt,
            told.session,
            False,
            booked,
            told.error[:500] or "failed",
            settle.retry_at(case.state, task, case.defaults, case.now) if told.retryable else 0,
        ),
    )


def cancelled(case: Case) -> Iterable[Event | Refused]:
    told: ReportIn = shapes.decode(case.raw, _report)
    task = _current(case, told)
    if task is None:
        yield from _stale(case, told, TaskCancelled)
        return
    booked = _booked(case, task, told)
    yield _told(
        case,
        TaskCancelled(
            told.task,
            told.attempt,
            told.session,
            False,
            booked,
            told.reason[:500] or told.error[:500],
        ),
    )


# -- usage -----------------------------------------------------------------------------------


class UsageIn(ReportIn, gc=False, kw_only=True):
    agent: str
    task: str = ""
    attempt: int = 0
    session: str = ""
    worker: str = ""
    project: str = ""
    kind: str = ""
    meter: str = ""
    time: Any = None


_usage_in = msgspec.json.Decoder(UsageIn)


def usage_recorded(case: Case) -> Iterable[Event]:
    """Usage of a running attempt (running totals: the difference is booked), or of work asb did
    not dispatch."""
    d: UsageIn = shapes.decode(case.raw, _usage_in)
    shapes.check_name(d.agent, "agent")
    _check_speaks_for(case, d.worker)
    reading = usage.reading_of(case.raw, d.usage)
    tokens = reading.usage
    if tokens is None:
        wrong = reading.flag or "no tokens: give input_tokens, output_tokens, … or total_tokens"
        raise Bad(wrong)
    state = case.state
    task = state.tasks.get(d.task) if d.task else None
    meter = d.meter[:40] or "reported"
    if task is not None and task.status in RUNNING and d.attempt in (0, task.attempt):
        _check_speaks_for(case, task.worker)
        booked = settle.settled(
            state,
            task,
            reading,
            model=d.model,
            own_cost=usage.own_cost(d.cost_usd),
            meter=meter,
            running=True,
        )
        booked.tasks = 0
        attempt = task.attempt
    elif d.task in state.tasks or d.task in state.outcomes:
        yield from _usage_afterwards(case, d, tokens, reading.flag)
        return
    else:
        shapes.check_disputes(state)
        booked = settle.booking(
            state, agent=d.agent, model=d.model, usage=tokens, own_cost=usage.own_cost(d.cost_usd)
        )
        booked = settle.foreign(state, booked)
        booked.worker, booked.project, booked.kind = d.worker, d.project, d.kind
        booked.meter, attempt = meter, 0
    booked.flag = reading.flag
    told_at = shapes.told_time(case.entry.fields) or moment(d.time)
    booked.day_at = shapes.own_time(
        told_at, case.now, task.dispatched_at if attempt and task else 0
    )
    yield _told(case, UsageRecorded(d.agent, booked, d.model, d.task, attempt, meter))


def _usage_afterwards(case: Case, d: UsageIn, tokens: Usage, flag: str) -> Iterable[Event]:
    """Usage of an attempt that is over: it takes the place of what was estimated for it. Where its
    worker has told the usage, that counts, and nothing is added."""
    record = case.state.tasks.get(d.task) or case.state.outcomes[d.task]
    for past in record.past:
        if past.attempt == (d.attempt or record.attempt) and not past.told:
            _check_speaks_for(case, past.worker)
            booked = settle.late(case.state, past, tokens)
            booked.flag = flag
            yield _told(case, UsageCorrected(d.agent, booked, d.task, past.attempt))
