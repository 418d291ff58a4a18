"""Results of tasks that the log lost: their submission was torn off with its tail. PURE."""

from __future__ import annotations

from events.commands.attempts import ReportAttempt
from events.tokens import TokenParts
from events.usage import UsageRecorded
from projections import spending
from services import ledger
from services.intake import schema
from services.intake.case import Case
from services.intake.usage import ReportedFigures

METER = "driver"


def is_lost(case: Case, task: str) -> bool:
    """Whether no task of this id stands on the log, neither open nor ended however long ago."""
    state = case.state
    known = task in state.tasks or task in state.outcomes
    return not known and task not in case.known.ended_tasks


def is_repeat(case: Case, reported: ReportAttempt) -> bool:
    """Whether this attempt was charged before."""
    return spending.torn_key(reported.task, reported.attempt, reported.session) in case.state.torn


def charged(
    case: Case, reported: ReportAttempt, figures: ReportedFigures
) -> tuple[str, UsageRecorded]:
    """The worker whose session it was ("" for nobody known), and its usage as foreign work."""
    state = case.state
    schema.check_name(reported.task, "task", schema.TASK_ID)
    schema.check_name(reported.session, "session", schema.LABEL)
    schema.check_disputes(state)
    worker = next((w for w in state.workers.values() if w.session == reported.session), None)
    name = worker.name if worker is not None else case.intake_name
    agent = (worker.agent if worker is not None else None) or name or "unknown"
    usage = figures.reading.usage or TokenParts()
    charged = ledger.charge(
        state, agent=agent, model=figures.model, usage=usage, own_cost=figures.own_cost
    )
    charged = ledger.foreign(state, charged)
    charged.worker, charged.meter, charged.flag = name, METER, figures.flag
    return name, UsageRecorded(
        agent,
        charged,
        figures.model,
        reported.task,
        reported.attempt,
        METER,
        reported.session,
        True,
    )
