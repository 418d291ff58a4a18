"""Progress documents at the intakes: whose they are, and what they add to usage. PURE."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from events import document
from events.commands.attempts import UpdateProgress
from events.document import ReadDocument, Totals
from events.envelope import Event
from events.task import Charge
from events.tokens import TokenParts
from events.usage import ProgressUpdated
from projections import charges, progress
from projections.records import RUNNING, Progress, TaskRecord
from projections.state import State
from services import ledger
from services.intake import schema
from services.intake.case import Case, takes
from services.intake.schema import Rejected

METER = "progress"
_BETTER_THAN = frozenset(("", METER, "estimate"))  # meters that progress is not worse than


@takes(UpdateProgress)
def updated(case: Case, command: UpdateProgress) -> Iterable[Event]:
    """A progress document: kept as its agent wrote it, its running totals charged once."""
    raw = bytes(command.document)
    wrong = command.unreadable or document.problem(
        command.agent, command.task, raw, case.defaults.result_max_bytes
    )
    if wrong:
        raise Rejected(wrong[:500])
    state = case.state
    last = state.progress.get(progress.key_of(command.agent, command.task))
    if command.newest is not None and command.newest != (last.log_id if last else ""):
        return  # another document was taken since: its reader looks again and finds what is there
    record = progress.newest(state, command.agent, command.task, case.now)
    task = _attempt_of(state, command.agent, command.task)
    _check_intake(case, command.agent, command.task, task)
    reported = document.read(raw)
    payload = ProgressUpdated(
        command.agent,
        command.task,
        msgspec.Raw(raw),
        attempt=task.attempt if task else 0,
        status=reported.status,
        percent=reported.percent,
        totals=reported.totals,
        flag=reported.flaw,
        completes=reported.status == document.COMPLETED
        and not (record and record.completed)
        and command.task not in state.tasks
        and command.task not in state.outcomes,
    )
    if reported.totals is not None:
        before = record if record and (task is None or task.attempt == record.attempt) else None
        _meter(case, payload, reported, reported.totals, before, task)
        if payload.charged is not None and payload.charged.disputed_tokens:
            payload.flag = f"{payload.charged.disputed_tokens} tokens more than is plausible"
    yield case.reported(payload, command)


def _attempt_of(state: State, agent: str, task_id: str) -> TaskRecord | None:
    """The running attempt this document belongs to: that of its task, unless the key names
    somebody else whom the bus knows. None: work that asb did not dispatch."""
    task = state.tasks.get(task_id)
    if task is None or task.status not in RUNNING:
        return None
    if agent in (task.worker, task.run_agent):
        return task
    others = state.workers.values()
    return None if any(agent in (w.name, w.agent) for w in others) else task


def _check_intake(case: Case, agent: str, task_id: str, task: TaskRecord | None) -> None:
    """A named intake speaks for its own name and for the attempts it runs or ran. Not for the agent
    it says to be: that is a claim, by which it could reach the documents of others."""
    name = case.intake_name
    if not name or name == agent or (task is not None and task.worker == name):
        return
    ended = case.state.outcomes.get(task_id)
    if ended is None or ended.worker != name or ended.agent != agent:
        raise Rejected(f"the intake of {name} may not speak for agent {agent!r}")


def _meter(
    case: Case,
    payload: ProgressUpdated,
    reported: ReadDocument,
    totals: Totals,
    before: Progress | None,
    task: TaskRecord | None,
) -> None:
    """Book what the running totals add, or say why they add nothing."""
    seen = before.seen if before else Totals()
    if totals.total < seen.total:
        payload.flag = f"tokens fell from {seen.total} to {totals.total}"
    seen = seen.highest(totals)
    if task is None:
        spent = _spent_before(case.state, payload.task)
        added = growth(seen, before.charged if before else (0, 0, 0, 0), spent)
        if added is not None:
            payload.charged = _foreign(case, payload.agent, reported, added)
        return
    if task.used is not None and task.used.meter not in _BETTER_THAN:
        payload.against = task.used.meter
        payload.difference = seen.total - sum(progress.parts_of(task.used))
        return
    added = growth(seen, progress.parts_of(task.used))
    if added is not None:
        payload.charged = _of_attempt(case, task, reported, added)


def growth(seen: Totals, have: tuple[int, int, int, int], at_least: int = 0) -> TokenParts | None:
    """What the running maximum ``seen`` adds to the parts charged so far; None for nothing.

    The sum grows exactly by the growth of the total. It goes to the parts that were named, as far
    as they grew, and to input for the rest; so an agent that first tells a bare total and its parts
    later is not counted twice. ``at_least``: tokens charged by other ways already.
    """
    room = seen.total - max(sum(have), at_least)
    if room <= 0:
        return None
    grown = [0, 0, 0, 0]
    for part in (1, 3, 2):
        grown[part] = min(room, max(0, seen.parts[part] - have[part]))
        room -= grown[part]
    grown[0] = room
    return TokenParts(*grown)


def _spent_before(state: State, task_id: str) -> int:
    """What ended attempts of a task of ours used: its agent's last totals, told too late, must not
    count again."""
    task, ended = state.tasks.get(task_id), state.outcomes.get(task_id)
    record = task or ended
    if record is None:
        return 0
    keys = (charges.key_of(task_id, number + 1) for number in range(record.attempt))
    disputed = sum(state.disputes[key].disputed_tokens for key in keys if key in state.disputes)
    return disputed + (task.spent_tokens if task is not None else ended.tokens if ended else 0)


def _of_attempt(case: Case, task: TaskRecord, reported: ReadDocument, added: TokenParts) -> Charge:
    charged = ledger.charge(
        case.state,
        agent=task.run_agent,
        model=reported.model or task.run_model,
        usage=added,
        fallback_nanos=task.hold_left[1],  # an unknown price takes the money held, once
    )
    charged = ledger.plausible(case.state, charged, ledger.room(case.state, task))
    return replace(
        charged,
        worker=task.worker,
        project=task.project,
        kind=task.kind,
        meter=METER,
        day_at=_own_time(case, reported, task.dispatched_at),
    )


def _foreign(case: Case, agent: str, reported: ReadDocument, added: TokenParts) -> Charge:
    schema.check_disputes(case.state)
    charged = ledger.charge(case.state, agent=agent, model=reported.model, usage=added)
    charged = ledger.foreign(case.state, charged)
    return replace(
        charged, project=reported.project, meter=METER, day_at=_own_time(case, reported, 0)
    )


def _own_time(case: Case, reported: ReadDocument, earliest: int) -> int:
    """The document's own time for the reports, where it can be true; else 0."""
    return schema.own_time(reported.at, case.now, earliest)
