"""Tasks as rows of plain data: running, waiting with the reason, ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from events.envelope import Event, text_of
from events.task import PRIORITIES
from projections.records import (
    BACKOFF,
    BLOCKED,
    CANCELLED,
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    SUBMITTED,
    Outcome,
    TaskRecord,
)
from projections.state import State
from projections.views import iso
from services.client.bus import Bus
from services.client.follow import archived, ends
from services.client.story import Story, status_of
from services.queries.missing import missing_names
from services.queries.waiting import Waiting
from services.store.heartbeat import beats

ERROR_MAX = 500  # characters of an error that a reason quotes
WAITING = (SUBMITTED, BLOCKED, QUEUED, BACKOFF)
ENDED = (COMPLETED, FAILED, CANCELLED)


Row = tuple[str, TaskRecord | Outcome]


def choose(state: State, wanted: set[str]) -> Iterator[Row]:
    """Tasks of these statuses: running, then waiting in the order they are tried, then the newest
    ended."""
    opened = [t for t in state.tasks.values() if t.status in wanted]
    opened.sort(key=lambda t: (t.status not in RUNNING, t.status != QUEUED, t.rank, t.n))
    yield from ((task.id, task) for task in opened)
    if wanted.intersection(ENDED):
        yield from (row for row in state.outcomes.newest() if row[1].status in wanted)


def count(state: State, wanted: set[str]) -> int:
    """How many tasks have these statuses."""
    opened = sum(t.status in wanted for t in state.tasks.values())
    if wanted.issuperset(ENDED):
        return opened + len(state.outcomes)
    if wanted.intersection(ENDED):
        opened += sum(outcome.status in wanted for outcome in state.outcomes.values())
    return opened


def standing(
    bus: Bus, state: State, now: int, task: str, events: list[Event], *, live: bool = True
) -> Story:
    """A task's events with how it stands in ``state``, and why it waits. ``live``: it is of now, so
    that services which nobody runs are a reason, too."""
    record, outcome = state.tasks.get(task), state.outcomes.get(task)
    if record is None:
        status = outcome.status if outcome else status_of(events)
        return Story(task, events, status, record=outcome)
    gone = missing_names(beats(bus.client, bus.keys)) if live else ()
    why = Waiting(state, now, gone, last_errors(bus, [record]))
    return Story(task, events, record.status, why.reason(record), record)


def task_rows(bus: Bus, state: State, now: int, chosen: list[Row]) -> list[dict[str, Any]]:
    submissions = _submissions(bus, chosen)
    why = Waiting(
        state,
        now,
        missing_names(beats(bus.client, bus.keys)),
        last_errors(bus, (record for _, record in chosen)),
    )
    errors = _errors(bus, chosen)
    rows: list[dict[str, Any]] = []
    for task_id, record in chosen:
        event = submissions.get(task_id)
        row = _open_row(record, why) if isinstance(record, TaskRecord) else _ended_row(record)
        row["text"] = text_of(event, "text") if event is not None else ""
        row["priority"] = event.data.priority if event is not None else row.get("priority", "")
        submitted_at = event.at if event is not None else row.pop("_at", now)
        row.pop("_at", None)
        row["submitted_at"], row["age_us"] = iso(submitted_at), now - submitted_at
        row["error"] = errors.get(task_id) or None
        rows.append({"task": task_id, **row})
    return rows


def last_errors(bus: Bus, tasks: Iterable[TaskRecord | Outcome | None]) -> dict[str, str]:
    """What the last failures of these tasks said, as far as they wait to be tried again."""
    backoffs = (t for t in tasks if isinstance(t, TaskRecord) and t.status == BACKOFF)
    events = bus.events_at([task.failed_id for task in backoffs])
    return {place: text_of(event, "error")[:ERROR_MAX] for place, event in events.items()}


def _errors(bus: Bus, chosen: list[Row]) -> dict[str, str]:
    """Why tasks failed or were cancelled, by task."""
    ended = [
        task
        for task, row in chosen
        if isinstance(row, Outcome) and row.status in (FAILED, CANCELLED)
    ]
    return {
        task: text_of(end, "error") or text_of(end, "reason")
        for task, end in ends(bus, ended).items()
    }


def _submissions(bus: Bus, chosen: list[Row]) -> dict[str, Event]:
    """The submission of each task; for ended ones its place stands in the task's index."""
    ended = [task for task, record in chosen if isinstance(record, Outcome)]
    firsts = bus.client.pipeline(("LINDEX", bus.keys.task_index(task), 0) for task in ended)
    places = {task: record.log_id for task, record in chosen if isinstance(record, TaskRecord)}
    places |= {
        t: first.decode()
        for t, first in zip(ended, firsts, strict=True)
        if isinstance(first, bytes)
    }
    events = bus.events_at(list(places.values()))
    said = archived(bus, (task for task in ended if task not in places))
    first = {task: events[0] for task, events in said.items() if events}
    return first | {task: events[place] for task, place in places.items() if place in events}


def _open_row(task: TaskRecord, why: Waiting) -> dict[str, Any]:
    return {
        "status": task.status,
        "priority": PRIORITIES[task.priority],
        "kind": task.kind,
        "agent": task.run_agent if task.status in RUNNING else task.agent,
        "model": task.run_model if task.status in RUNNING else task.model,
        "worker": task.worker or None,
        "attempt": task.attempt,
        "waiting": why.reason(task) or None,
        "tokens": task.spent_tokens + task.used_tokens,
        "cost_nanos": task.spent_nanos + task.used_nanos,
        "_at": task.submitted_at,
    }


def _ended_row(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "kind": outcome.kind,
        "agent": outcome.agent,
        "model": outcome.model,
        "worker": outcome.worker or None,
        "attempt": outcome.attempt,
        "waiting": None,
        "tokens": outcome.tokens,
        "cost_nanos": outcome.nanos,
        "ended_at": iso(outcome.at),
    }
