"""Results of tasks that the log lost: their submission was torn off with its tail. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from events.tokens import Reading, Usage
from events.usage import UsageRecorded
from projections import attempts
from services import settle
from services.intake import shapes

if TYPE_CHECKING:
    from services.intake.case import Case

METER = "driver"


class Result(Protocol):
    """What names the attempt, in the report of its end."""

    task: str
    attempt: int
    session: str
    model: str


def unknown(task: str) -> str:
    """Why such a result is no end of a task."""
    return f"task {task[:80]!r} is unknown"


def is_lost(case: Case, task: str) -> bool:
    """Whether no task of this id stands on the log, neither open nor ended however long ago."""
    state = case.state
    known = task in state.tasks or task in state.outcomes
    return not known and task not in case.known.ended_tasks


def is_repeat(case: Case, told: Result) -> bool:
    """Whether this attempt was charged before."""
    return attempts.torn_key(told.task, told.attempt, told.session) in case.state.torn


def charged(
    case: Case, told: Result, reading: Reading, own_cost: int | None
) -> tuple[str, UsageRecorded]:
    """The worker whose session it was ("" for nobody known), and its usage as foreign work."""
    state = case.state
    shapes.check_name(told.task, "task", shapes.TASK_ID)
    shapes.check_name(told.session, "session", shapes.LABEL)
    shapes.check_disputes(state)
    worker = next((w for w in state.workers.values() if w.session == told.session), None)
    name = worker.name if worker is not None else case.door_name
    agent = (worker.agent if worker is not None else None) or name or "unknown"
    usage = reading.usage or Usage()
    booked = settle.booking(state, agent=agent, model=told.model, usage=usage, own_cost=own_cost)
    booked = settle.foreign(state, booked)
    booked.worker, booked.meter, booked.flag = name, METER, reading.flag
    return name, UsageRecorded(
        agent, booked, told.model, told.task, told.attempt, METER, told.session, True
    )
