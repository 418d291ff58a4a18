"""services.queries.history: TODO say what this room holds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from events.envelope import Event
from events.money import dollars, nanos_of
from events.task import AttemptEnd, Charge
from projections import views
from projections.views import iso
from services.client.follow import Ended

_tell = msgspec.json.Decoder(type=dict[str, Any])


class Story(msgspec.Struct):
    """A task's events in order, and what is known beside them."""

    task: str
    events: list[Event]
    status: str
    waiting: str = ""  # why it waits, if it does

    def last(self, kind: str) -> Event | None:
        return next((e for e in reversed(self.events) if e.type == kind), None)

    @property
    def charged(self) -> Charge:
        """Sums over all its attempts."""
        total = Charge()
        for event in self.events:
            b: Charge | None = getattr(event.data, "charged", None)
            if b is not None:
                total.tokens += b.tokens
                total.nanos += b.nanos
                total.input_tokens += b.input_tokens
                total.output_tokens += b.output_tokens
                total.cache_read_tokens += b.cache_read_tokens
                total.cache_write_tokens += b.cache_write_tokens
                total.disputed_tokens += b.disputed_tokens
                total.disputed_nanos += b.disputed_nanos
                total.estimated |= b.estimated and b.tokens > 0
        return total


def report_of(event: Event) -> dict[str, Any]:
    """What the worker itself report_of in ``event``, as it wrote it."""
    found = _tell.decode(event.raw).get("report_of") if event.raw else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def own_cost(story: Story) -> int | None:
    """What the agent itself says that its attempts cost, nano-dollars; None: it says nothing."""
    ends = (e for e in story.events if isinstance(e.data, AttemptEnd) and e.origin)
    figures = [report_of(event).get("cost_usd") for event in ends]
    nanos: list[int] = []
    for figure in figures:
        if isinstance(figure, int | float | str) and not isinstance(figure, bool):
            with contextlib.suppress(ValueError):
                nanos.append(nanos_of(figure))
    return sum(nanos) if nanos else None


def history_view(story: Story) -> dict[str, Any]:
    """``asb task ID --json``."""
    submitted = story.last("task.submitted")
    b = story.charged
    return {
        "task": story.task,
        "status": story.status,
        "waiting": story.waiting or None,
        "history_text": submitted.data.text if submitted is not None else None,
        "tokens": b.tokens,
        "cost": dollars(b.nanos),
        "cost_nanos": b.nanos,
        "disputed_tokens": b.disputed_tokens,
        "disputed_cost_nanos": b.disputed_nanos,
        "result": report_of(story.events[-1]).get("result") if story.events else None,
        "events": [event_view(event) for event in story.events],
    }


def event_view(event: Event) -> dict[str, Any]:
    """One event of the log for programs: the envelope, and its data as it was written."""
    return {
        "log_id": event.log_id,
        "type": event.type,
        "id": event.id,
        "source": event.source,
        "from": event.origin,
        "at": views.iso(event.at),
        "at_us": event.at,
        "data": msgspec.Raw(event.raw),
    }


def status_of(events: Sequence[Event]) -> str:
    """What the events of a task came to."""
    names = {
        "task.completed": "completed",
        "task.cancelled": "cancelled",
        "task.dispatched": "dispatched",
        "task.started": "started",
        "task.requeued": "queued",
        "task.delegated": "queued",
    }
    found = "submitted"
    for event in events:
        if getattr(event.data, "stale", False):
            continue
        if event.type == "task.failed":
            found = "backoff" if event.data.retry_at else "failed"
        else:
            found = names.get(event.type, found)
    return found


def ended_view(ended: Ended) -> dict[str, Any]:
    """An outcome for programs."""
    found: dict[str, Any] = {"task": ended.task, "status": ended.status}
    if ended.error:
        found["error"] = ended.error
    if ended.story is not None:
        b, events = ended.story.charged, ended.story.events
        last, worker = events[-1], ended.story.last("task.dispatched")
        found |= {
            "worker": worker.data.worker if worker is not None else None,
            "attempt": last.data.attempt,
            "tokens": b.tokens,
            "cost": dollars(b.nanos),
            "cost_nanos": b.nanos,
            "result": report_of(last).get("result"),
            "ended_at": iso(last.at),
            "took_us": last.at - events[0].at,
        }
    return found
