"""What happened: events in a line each, and one task's whole history as a page shows it. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from events.envelope import Event, text_of
from events.money import dollars
from events.task import Charge
from projections.format import first_line
from services.client.story import Story, result_of
from services.queries.describe import describe

WORDS_MAX = 300
TEXT_MAX = 20_000  # characters of a prompt or result that a page carries


class EventRow(msgspec.Struct, frozen=True):
    """An event in a line: where and when (µs) it stands, what it is about, and what it says."""

    log_id: str
    at: int
    type: str
    task: str
    worker: str
    words: str
    severe: bool


class Span(msgspec.Struct, frozen=True):
    """An attempt from its dispatch to its end; ``ended_at`` 0 while it runs. Times are µs."""

    attempt: int
    worker: str
    agent: str
    model: str
    dispatched_at: int
    started_at: int
    ended_at: int
    outcome: str
    tokens: int
    cost_nanos: int


class TaskPage(msgspec.Struct, frozen=True):
    """A task as a page shows it: what it is, how it went, and what came of it."""

    task: str
    status: str
    waiting: str
    text: str
    priority: str
    project: str
    kind: str
    route: str
    reason: str
    submitted_at: int
    ended_at: int
    tokens: int
    cost: str
    cost_nanos: int
    disputed_tokens: int
    attempts: list[Span]
    events: list[EventRow]
    result: str
    as_of: str


_SEVERE = ("task.failed", "worker.lost", "worker.refused", "account.limited", "log.went_back")


def event_row(event: Event) -> EventRow:
    """One event, in words."""
    payload = event.data
    return EventRow(
        event.log_id,
        event.at,
        event.type,
        getattr(payload, "task", ""),
        getattr(payload, "worker", ""),
        first_line(describe(event))[:WORDS_MAX],
        event.type in _SEVERE or event.type == "alert.raised",
    )


def task_page(story: Story, as_of: str) -> TaskPage:
    """The page of a task whose events are not none."""
    events = story.events
    submitted, delegated = story.last("task.submitted"), story.last("task.delegated")
    charged, result = story.charged, result_of(events)
    route = delegated.data if delegated is not None else None
    return TaskPage(
        task=story.task,
        status=story.status,
        waiting=story.waiting,
        text=text_of(submitted, "text")[:TEXT_MAX] if submitted is not None else "",
        priority=submitted.data.priority if submitted is not None else "",
        project=submitted.data.project if submitted is not None else "",
        kind=route.kind if route is not None else "",
        route=f"{route.agent} with {route.model}" if route is not None else "",
        reason=text_of(delegated, "reason") if delegated is not None else "",
        submitted_at=events[0].at,
        ended_at=story.end.at if story.end is not None else 0,
        tokens=charged.tokens,
        cost=dollars(charged.nanos),
        cost_nanos=charged.nanos,
        disputed_tokens=charged.disputed_tokens,
        attempts=_attempts(events),
        events=[event_row(event) for event in events],
        result=_text(result),
        as_of=as_of,
    )


def _text(result: Any) -> str:
    if result is None:
        return ""
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return text[:TEXT_MAX]


_ENDS = {
    "task.completed": "completed",
    "task.failed": "failed",
    "task.cancelled": "cancelled",
    "task.requeued": "requeued",
}


def _attempts(events: Iterable[Event]) -> list[Span]:
    """The attempts of a task, in order."""
    spans: dict[int, dict[str, Any]] = {}
    for event in events:
        payload = event.data
        attempt: int = getattr(payload, "attempt", 0)
        if event.type == "task.dispatched":
            spans[attempt] = {
                "worker": payload.worker,
                "agent": payload.agent,
                "model": payload.model,
                "dispatched_at": event.at,
            }
        known = spans.get(attempt)
        if known is None:
            continue
        if event.type == "task.started":
            known["started_at"] = event.at
        elif event.type in _ENDS and "ended_at" not in known:
            known |= {"ended_at": event.at, "outcome": _ENDS[event.type]}
        charged: Charge | None = getattr(payload, "charged", None)
        if charged is not None:
            known["tokens"] = known.get("tokens", 0) + charged.tokens
            known["cost_nanos"] = known.get("cost_nanos", 0) + charged.nanos
    empty: dict[str, Any] = {
        "started_at": 0,
        "ended_at": 0,
        "outcome": "",
        "tokens": 0,
        "cost_nanos": 0,
    }
    return [Span(attempt=n, **{**empty, **known}) for n, known in sorted(spans.items())]
