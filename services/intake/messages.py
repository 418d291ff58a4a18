"""What workers and agents report: ends of attempts, usage. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from events.commands.attempts import (
    RecordUsage,
    ReportAttempt,
    ReportCancel,
    ReportDelivery,
    ReportFailure,
    ReportResult,
    ReportStart,
)
from events.document import moment
from events.envelope import Event
from events.task import (
    AttemptEnd,
    Charge,
    TaskCancelled,
    TaskCompleted,
    TaskDelivered,
    TaskFailed,
    TaskRequeued,
    TaskStarted,
)
from events.tokens import Reading, TokenParts
from events.usage import UsageCorrected, UsageRecorded
from projections.records import RUNNING, PastAttempt, TaskRecord
from services import ledger
from services.decider import Rejection
from services.intake import accounts, meters, schema, torn, usage
from services.intake.case import Case, takes
from services.intake.schema import Rejected
from services.intake.usage import ReportedFigures


def _current(case: Case, reported: ReportAttempt) -> TaskRecord | None:
    """The task, if ``reported`` is about the attempt that runs now."""
    task = case.state.tasks.get(reported.task)
    if (
        task is not None
        and task.status in RUNNING
        and task.attempt == reported.attempt
        and task.session == reported.session
    ):
        case.check_speaks_for(task.worker)
        return task
    return None


def _past(case: Case, reported: ReportAttempt) -> PastAttempt | None:
    """The ended attempt ``reported`` is about, if its worker had not spoken yet; None for a
    repeat."""
    state = case.state
    record = state.record_of(reported.task)
    if record is None:
        if reported.task in case.known.ended_tasks:
            return None
        raise Rejected(schema.unknown_task(reported.task))
    if reported.attempt > record.attempt or reported.attempt < 1:
        raise Rejected(f"task {reported.task[:80]!r} has no attempt {reported.attempt}")
    for past in record.past:
        spoke = past.reported or past.heard
        if past.attempt == reported.attempt and past.session == reported.session and not spoke:
            case.check_speaks_for(past.worker)
            return past
    return None


def _stale(
    case: Case, reported: ReportAttempt, figures: ReportedFigures, make: type[AttemptEnd], cut: int
) -> Iterable[Event | Rejection]:
    if torn.is_lost(case, reported.task):
        yield from _torn(case, reported, figures)
        return
    past = _past(case, reported)
    if past is not None:
        charged = None
        if figures.reading.usage is not None:
            charged = ledger.late(case.state, past, figures.reading.usage)
            charged.flag = figures.flag
        ended = make(reported.task, reported.attempt, reported.session, True, charged)
        yield case.reported(ended, reported, figures.numbers(reported, cut))


def _torn(
    case: Case, reported: ReportAttempt, figures: ReportedFigures
) -> Iterable[Event | Rejection]:
    """The usage of a result whose task the log lost is charged as foreign work, once; the rest is a
    dead letter."""
    if torn.is_repeat(case, reported):
        return
    if figures.reading.usage is None:
        raise Rejected(schema.unknown_task(reported.task))
    name, payload = torn.charged(case, reported, figures)
    case.check_speaks_for(name)
    yield case.reported(payload, reported, figures.numbers(reported))
    error = f"{schema.unknown_task(reported.task)} to this log"
    yield Rejection(case.entry, f"{error}; its usage was charged as foreign work")


def _charged(
    case: Case, task: TaskRecord, reported: ReportAttempt, figures: ReportedFigures
) -> Charge:
    if _was_free(task, reported, figures.reading):
        return ledger.unstarted(task)
    charged = ledger.final_charge(
        case.state,
        task,
        figures.reading,
        model=figures.model,
        own_cost=figures.own_cost,
        meter=meters.name_of(reported.meter),
    )
    charged.flag = figures.flag
    return charged


def _was_free(task: TaskRecord, reported: ReportAttempt, reading: Reading) -> bool:
    """Whether its worker says that it never began, or called no model: the hold is released."""
    if task.used is not None or (reading.usage is not None and reading.usage.whole):
        return False
    if reported.calls == 0:
        return True
    return not reported.started and reading.usage is None and not task.started_at


@takes(ReportDelivery)
def delivered(case: Case, reported: ReportDelivery) -> Iterable[Event]:
    if _current(case, reported):
        schema.check_name(reported.by or None, "by", schema.LABEL)
        payload = TaskDelivered(
            reported.task,
            reported.attempt,
            reported.session,
            reported.by,
            reported.changes[:CHANGES_MAX],
        )
        yield case.reported(payload, reported)


@takes(ReportStart)
def started(case: Case, reported: ReportStart) -> Iterable[Event]:
    task = _current(case, reported)
    if task is None:
        _past(case, reported)
    elif not task.started_at:
        payload = TaskStarted(reported.task, reported.attempt, reported.session)
        yield case.reported(payload, reported)


@takes(ReportResult)
def completed(case: Case, reported: ReportResult) -> Iterable[Event | Rejection]:
    cut = _shorten_result(case, reported)

    def end(_task: TaskRecord, charged: Charge) -> AttemptEnd:
        return TaskCompleted(reported.task, reported.attempt, reported.session, False, charged)

    yield from _ended(case, reported, TaskCompleted, end, cut)


def _ended(
    case: Case,
    reported: ReportAttempt,
    stale: type[AttemptEnd],
    end: Callable[[TaskRecord, Charge], AttemptEnd],
    cut: int = 0,
) -> Iterable[Event | Rejection]:
    """The end of the attempt that runs, charged; of another, what ``stale`` makes of it. ``cut``:
    how long its result was, where it was cut."""
    figures = usage.of_end(case.raw, reported)
    task = _current(case, reported)
    if task is None:
        yield from _stale(case, reported, figures, stale, cut)
        return
    corrections, charged = meters.taken_back(case, task, _charged(case, task, reported, figures))
    for number, correction in enumerate(corrections):
        event = case.event(correction)
        event.id = f"{case.entry.id}.back{number}"
        yield event
    yield from meters.compared(case, reported, task.run_agent, figures.reading.usage)
    yield case.reported(end(task, charged), reported, figures.numbers(reported, cut))


def _shorten_result(case: Case, reported: ReportAttempt) -> int:
    """A result that is too long is cut rather than refused: the work was done. How many bytes it
    had; 0 where it is whole."""
    bound = case.defaults.result_max_bytes
    if len(case.raw) <= bound:
        return 0
    text = (
        reported.result
        if isinstance(reported.result, str)
        else msgspec.json.encode(reported.result).decode()
    )
    whole = text.encode()
    kept = whole[: bound - 1024].decode(errors="ignore")
    fields: dict[str, object] = msgspec.json.decode(case.raw)
    case.raw = msgspec.json.encode({**fields, "result": kept})
    if len(case.raw) > 2 * bound:
        raise Rejected(
            f"the report has {len(case.raw):,} bytes beside its result; at most {bound:,}"
        )
    return len(whole)


@takes(ReportFailure)
def failed(case: Case, reported: ReportFailure) -> Iterable[Event | Rejection]:
    cut = _shorten_result(case, reported)
    attempt = (reported.task, reported.attempt, reported.session, False)

    limit = accounts.read_limit(reported.limit)
    current = _current(case, reported)
    account = ""
    if limit is not None and current is not None and not current.cancelling:
        account, said = accounts.refused(case, current, limit)
        yield from said

    def end(task: TaskRecord, charged: Charge) -> AttemptEnd:
        if task.cancelling:
            return TaskCancelled(*attempt, charged, reported.error)
        if account:
            return TaskRequeued(*attempt, charged, f"the provider of {account} refused it", account)
        again = reported.retryable
        retry_at = ledger.retry_at(case.state, task, case.defaults, case.now) if again else 0
        return TaskFailed(*attempt, charged, reported.error or "failed", retry_at)

    yield from _ended(case, reported, TaskFailed, end, cut)


@takes(ReportCancel)
def cancelled(case: Case, reported: ReportCancel) -> Iterable[Event | Rejection]:
    reason = reported.reason or reported.error

    def end(_task: TaskRecord, charged: Charge) -> AttemptEnd:
        return TaskCancelled(
            reported.task, reported.attempt, reported.session, False, charged, reason
        )

    yield from _ended(case, reported, TaskCancelled, end)


# -- usage -----------------------------------------------------------------------------------


METER_MAX = 40  # characters
CHANGES_MAX = 500


@takes(RecordUsage)
def usage_recorded(case: Case, command: RecordUsage) -> Iterable[Event]:
    """Usage of a running attempt (running totals: the difference is charged), or of work asb did
    not dispatch."""
    _check_names(command)
    case.check_speaks_for(command.worker)
    figures = usage.of_report(case.raw, command)
    state = case.state
    task = state.tasks.get(command.task) if command.task else None
    meter = command.meter[:METER_MAX] or "reported"
    if task is not None and task.status in RUNNING and command.attempt in (0, task.attempt):
        case.check_speaks_for(task.worker)
        charged = ledger.final_charge(
            state,
            task,
            figures.reading,
            model=figures.model,
            own_cost=figures.own_cost,
            meter=meter,
            running=True,
        )
        charged.tasks = 0
        if task.used is not None and not charged.tokens and not charged.nanos:
            charged.meter = min(meter, task.used.meter, key=ledger.rank)
        attempt = task.attempt
    elif command.task in state.tasks or command.task in state.outcomes:
        yield from _usage_afterwards(case, command, figures)
        return
    else:
        charged, attempt = _foreign(case, command, figures), 0
        charged.meter = meter
    charged.flag = figures.flag
    written_at = schema.written_time(case.entry.fields) or moment(command.time)
    earliest = task.dispatched_at if attempt and task else 0
    charged.day_at = schema.own_time(written_at, case.now, earliest)
    payload = UsageRecorded(command.agent, charged, command.model, command.task, attempt, meter)
    yield case.reported(payload, command, figures.numbers(command))


def _check_names(command: RecordUsage) -> None:
    schema.check_name(command.agent, "agent")
    for name in ("task", "worker", "project", "kind", "model", "meter"):
        schema.check_name(getattr(command, name) or None, name, schema.LABEL)


def _foreign(case: Case, command: RecordUsage, figures: ReportedFigures) -> Charge:
    """Work that asb did not dispatch."""
    schema.check_disputes(case.state)
    charged = ledger.charge(
        case.state,
        agent=command.agent,
        model=figures.model,
        usage=figures.reading.usage or TokenParts(),
        own_cost=figures.own_cost,
    )
    charged = ledger.foreign(case.state, charged)
    charged.worker, charged.project, charged.kind = command.worker, command.project, command.kind
    return charged


def _usage_afterwards(
    case: Case, command: RecordUsage, figures: ReportedFigures
) -> Iterable[Event]:
    """Usage of an attempt that is over: it takes the place of what was estimated for it. Where its
    worker has told the usage, that counts, and nothing is added."""
    record = case.state.tasks.get(command.task) or case.state.outcomes[command.task]
    for past in record.past:
        if past.attempt == (command.attempt or record.attempt) and not past.heard:
            case.check_speaks_for(past.worker)
            reading, meter = figures.reading, command.meter[:METER_MAX] or "reported"
            parts = reading.usage or TokenParts()
            charged = ledger.late(case.state, past, parts, meter, reading.models)
            charged.flag = figures.flag
            payload = UsageCorrected(command.agent, charged, command.task, past.attempt)
            yield case.reported(payload, command, figures.numbers(command))
