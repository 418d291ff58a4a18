"""What workers and agents report: ends of attempts, usage. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from events.document import moment
from events.envelope import Event
from events.task import (
    AttemptEnd,
    Charge,
    TaskCancelled,
    TaskCompleted,
    TaskDelivered,
    TaskFailed,
    TaskStarted,
)
from events.tokens import Reading, TokenParts
from events.usage import UsageCorrected, UsageRecorded
from projections.records import RUNNING, PastAttempt, TaskRecord
from services import ledger
from services.decider import Rejection
from services.intake import schema, torn, usage
from services.intake.case import Case
from services.intake.schema import Rejected

_told, _check_speaks_for = Case.reported, Case.check_speaks_for

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
    calls: int | None = None


_report = msgspec.json.Decoder(ReportIn)


def _current(case: Case, reported: ReportIn) -> TaskRecord | None:
    """The task, if ``reported`` is about the attempt that runs now."""
    task = case.state.tasks.get(reported.task)
    if (
        task is not None
        and task.status in RUNNING
        and task.attempt == reported.attempt
        and task.session == reported.session
    ):
        _check_speaks_for(case, task.worker)
        return task
    return None


def _past(case: Case, reported: ReportIn) -> PastAttempt | None:
    """The ended attempt ``reported`` is about, if its worker had not spoken yet; None for a
    repeat."""
    state = case.state
    record = state.tasks.get(reported.task) or state.outcomes.get(reported.task)
    if record is None:
        if reported.task in case.known.ended_tasks:
            return None
        raise Rejected(torn.unknown(reported.task))
    if reported.attempt > record.attempt or reported.attempt < 1:
        raise Rejected(f"task {reported.task[:80]!r} has no attempt {reported.attempt}")
    for past in record.past:
        spoke = past.reported or past.heard
        if past.attempt == reported.attempt and past.session == reported.session and not spoke:
            _check_speaks_for(case, past.worker)
            return past
    return None


def _stale(case: Case, reported: ReportIn, make: type[AttemptEnd]) -> Iterable[Event | Rejection]:
    if torn.is_lost(case, reported.task):
        yield from _torn(case, reported)
        return
    past = _past(case, reported)
    if past is not None:
        reading = usage.reading_of(case.raw, reported.usage)
        charged = None
        if reading.usage is not None:
            charged = ledger.late(case.state, past, reading.usage)
            charged.flag = reading.flag
        yield _told(case, make(reported.task, reported.attempt, reported.session, True, charged))


def _torn(case: Case, reported: ReportIn) -> Iterable[Event | Rejection]:
    """The usage of a result whose task the log lost is charged as foreign work, once; the rest is a
    dead letter."""
    if torn.is_repeat(case, reported):
        return
    reading = usage.reading_of(case.raw, reported.usage)
    if reading.usage is None:
        raise Rejected(torn.unknown(reported.task))
    cost, _ = usage.own_cost_of_end(reported.cost_usd)
    name, payload = torn.charged(case, reported, reading, cost)
    _check_speaks_for(case, name)
    yield _told(case, payload)
    error = f"{torn.unknown(reported.task)} to this log; its usage was charged as foreign work"
    yield Rejection(case.entry, error)


def _booked(case: Case, task: TaskRecord, reported: ReportIn) -> Charge:
    reading = usage.reading_of(case.raw, reported.usage)
    if _was_free(task, reported, reading):
        return ledger.unstarted(task)
    cost, flag = usage.own_cost_of_end(reported.cost_usd)
    charged = ledger.final_charge(
        case.state, task, reading, model=schema.label(reported.model), own_cost=cost
    )
    charged.flag = "; ".join(filter(None, (reading.flag, flag)))
    return charged


def _was_free(task: TaskRecord, reported: ReportIn, reading: Reading) -> bool:
    """Whether its worker says that it never began, or called no model: the hold is released."""
    if task.used is not None or (reading.usage is not None and reading.usage.whole):
        return False
    if reported.calls == 0:
        return True
    return not reported.started and reading.usage is None and not task.started_at


def delivered(case: Case) -> Iterable[Event]:
    reported: ReportIn = schema.decode(case.raw, _report)
    if _current(case, reported):
        yield _told(case, TaskDelivered(reported.task, reported.attempt, reported.session))


def started(case: Case) -> Iterable[Event]:
    reported: ReportIn = schema.decode(case.raw, _report)
    task = _current(case, reported)
    if task is None:
        _past(case, reported)
    elif not task.started_at:
        yield _told(case, TaskStarted(reported.task, reported.attempt, reported.session))


def completed(case: Case) -> Iterable[Event | Rejection]:
    reported: ReportIn = schema.decode(case.raw, _report)
    _shorten_result(case, reported)

    def end(_task: TaskRecord, charged: Charge) -> AttemptEnd:
        return TaskCompleted(reported.task, reported.attempt, reported.session, False, charged)

    yield from _ended(case, reported, TaskCompleted, end)


def _ended(
    case: Case,
    reported: ReportIn,
    stale: type[AttemptEnd],
    end: Callable[[TaskRecord, Charge], AttemptEnd],
) -> Iterable[Event | Rejection]:
    """The end of the attempt that runs, charged; of another, what ``stale`` makes of it."""
    task = _current(case, reported)
    if task is None:
        yield from _stale(case, reported, stale)
        return
    yield _told(case, end(task, _booked(case, task, reported)))


def _shorten_result(case: Case, reported: ReportIn) -> None:
    """A result that is too long is cut rather than refused: the work was done."""
    most = case.defaults.result_max_bytes
    if len(case.raw) <= most:
        return
    text = (
        reported.result
        if isinstance(reported.result, str)
        else msgspec.json.encode(reported.result).decode()
    )
    kept = text.encode()[: most - 1024].decode(errors="ignore")
    data: dict[str, Any] = msgspec.json.decode(case.raw)
    case.raw = msgspec.json.encode(
        {**data, "result": kept, "result_bytes": len(text.encode()), "truncated": True}
    )
    if len(case.raw) > 2 * most:
        raise Rejected(
            f"the report has {len(case.raw):,} bytes beside its result; at most {most:,}"
        )


def failed(case: Case) -> Iterable[Event | Rejection]:
    reported: ReportIn = schema.decode(case.raw, _report)
    _shorten_result(case, reported)
    attempt = (reported.task, reported.attempt, reported.session, False)
    error = reported.error[:500]

    def end(task: TaskRecord, charged: Charge) -> AttemptEnd:
        if task.cancelling:
            return TaskCancelled(*attempt, charged, error)
        again = reported.retryable
        retry_at = ledger.retry_at(case.state, task, case.defaults, case.now) if again else 0
        return TaskFailed(*attempt, charged, error or "failed", retry_at)

    yield from _ended(case, reported, TaskFailed, end)


def cancelled(case: Case) -> Iterable[Event | Rejection]:
    reported: ReportIn = schema.decode(case.raw, _report)
    reason = reported.reason[:500] or reported.error[:500]

    def end(_task: TaskRecord, charged: Charge) -> AttemptEnd:
        return TaskCancelled(
            reported.task, reported.attempt, reported.session, False, charged, reason
        )

    yield from _ended(case, reported, TaskCancelled, end)


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
    """Usage of a running attempt (running totals: the difference is charged), or of work asb did
    not dispatch."""
    command: UsageIn = schema.decode(case.raw, _usage_in)
    schema.check_name(command.agent, "agent")
    schema.check_name(command.worker or None, "worker")
    for what in ("task", "model", "project", "kind", "meter"):
        schema.check_name(getattr(command, what) or None, what, schema.LABEL)
    _check_speaks_for(case, command.worker)
    reading = usage.reading_of(case.raw, command.usage)
    tokens = reading.usage
    if tokens is None:
        wrong = reading.flag or "no tokens: give input_tokens, output_tokens, … or total_tokens"
        raise Rejected(wrong)
    state = case.state
    task = state.tasks.get(command.task) if command.task else None
    meter = command.meter[:40] or "reported"
    if task is not None and task.status in RUNNING and command.attempt in (0, task.attempt):
        _check_speaks_for(case, task.worker)
        charged = ledger.final_charge(
            state,
            task,
            reading,
            model=command.model,
            own_cost=usage.own_cost(command.cost_usd),
            meter=meter,
            running=True,
        )
        charged.tasks = 0
        attempt = task.attempt
    elif command.task in state.tasks or command.task in state.outcomes:
        yield from _usage_afterwards(case, command, tokens, reading.flag)
        return
    else:
        schema.check_disputes(state)
        charged = ledger.charge(
            state,
            agent=command.agent,
            model=command.model,
            usage=tokens,
            own_cost=usage.own_cost(command.cost_usd),
        )
        charged = ledger.foreign(state, charged)
        charged.worker, charged.project, charged.kind = (
            command.worker,
            command.project,
            command.kind,
        )
        charged.meter, attempt = meter, 0
    charged.flag = reading.flag
    told_at = schema.told_time(case.entry.fields) or moment(command.time)
    charged.day_at = schema.own_time(
        told_at, case.now, task.dispatched_at if attempt and task else 0
    )
    yield _told(
        case, UsageRecorded(command.agent, charged, command.model, command.task, attempt, meter)
    )


def _usage_afterwards(
    case: Case, command: UsageIn, tokens: TokenParts, flag: str
) -> Iterable[Event]:
    """Usage of an attempt that is over: it takes the place of what was estimated for it. Where its
    worker has told the usage, that counts, and nothing is added."""
    record = case.state.tasks.get(command.task) or case.state.outcomes[command.task]
    for past in record.past:
        if past.attempt == (command.attempt or record.attempt) and not past.heard:
            _check_speaks_for(case, past.worker)
            charged = ledger.late(case.state, past, tokens)
            charged.flag = flag
            yield _told(case, UsageCorrected(command.agent, charged, command.task, past.attempt))
