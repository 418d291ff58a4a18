"""One task's story: its events in order, and what they come to. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from events.envelope import Event, beside, read_word
from events.task import AttemptEnd, Charge, add_figures
from events.usage import UsageCorrected
from events.words import FORGOTTEN
from projections.records import Outcome, TaskRecord

_ENDS = ("task.completed", "task.failed", "task.cancelled")


class Story(msgspec.Struct):
    """A task's events in order, and what is known beside them: its ``record`` in the state they
    were read with (None where there is none, or it was not asked), and why it waits, if it does."""

    task: str
    events: list[Event]
    status: str
    waiting: str = ""
    record: TaskRecord | Outcome | None = None

    def last(self, kind: str) -> Event | None:
        return next((e for e in reversed(self.events) if e.type == kind), None)

    @property
    def end(self) -> Event | None:
        """What ended it; usage, corrections and the like may be told after it."""
        return end_of(self.events)

    @property
    def took_us(self) -> int:
        """From its first event to its end, or to its last event while it is open; µs."""
        return (self.end or self.events[-1]).at - self.events[0].at

    @property
    def charged(self) -> Charge:
        """Sums over all its attempts."""
        total, estimated = Charge(), set[int]()
        for event in self.events:
            charged: Charge | None = getattr(event.data, "charged", None)
            if charged is None:
                continue
            add_figures(total, charged)
            total.flag = charged.flag or total.flag
            attempt = getattr(event.data, "attempt", 0)
            if isinstance(event.data, UsageCorrected):
                estimated.discard(attempt)
            elif charged.estimated and charged.tokens > 0:
                estimated.add(attempt)
        total.estimated = bool(estimated)
        return total


def is_end(event: Event) -> bool:
    """Whether its task is over with ``event``."""
    if event.type not in _ENDS or event.data.stale:
        return False
    return event.type != "task.failed" or not event.data.retry_at


def end_of(events: Sequence[Event]) -> Event | None:
    """What ended the task of these events, wherever it stands among them; None while it is open."""
    return next((event for event in reversed(events) if is_end(event)), None)


def _ends_attempt(event: Event) -> bool:
    return isinstance(event.data, AttemptEnd) and not event.data.stale


def result_of(events: Sequence[Event]) -> Any:
    """The result that the last end among these events tells, None where it tells none: usage may
    be told after it. What was taken out of the log shows as forgotten."""
    end = next((e for e in reversed(events) if _ends_attempt(e)), None)
    if end is None:
        return None
    parts = beside(end)
    if "result" in parts.words:
        return read_word(parts.words["result"])
    return FORGOTTEN if parts.forgotten_at and "result" in parts.marks else None


def with_result(raw: bytes, result: Any) -> bytes:
    """The data of an end that reuses another task's ``result``, None where that is gone."""
    if result is None:
        return raw
    data: dict[str, Any] = msgspec.json.decode(raw)
    return msgspec.json.encode({**data, "words": {**data.get("words", {}), "result": result}})


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
    status = "submitted"
    for event in events:
        if getattr(event.data, "stale", False):
            continue
        if event.type == "task.failed":
            status = "backoff" if event.data.retry_at else "failed"
        else:
            status = names.get(event.type, status)
    return status
