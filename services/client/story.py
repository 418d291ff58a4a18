"""One task's story: its events in order, and what they come to. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from events.envelope import Event
from events.task import Charge

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
    """What the worker itself reported in ``event``, as it wrote it."""
    found = _tell.decode(event.raw).get("reported") if event.raw else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


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
