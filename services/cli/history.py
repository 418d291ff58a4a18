"""One task's whole history: what became of it, and its events with the gaps to scale. PURE."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from events.envelope import Event
from events.money import dollars, nanos_of
from events.task import AttemptEnd, Booking
from projections import views
from services.cli.out import clip, first_line
from services.cli.screens import RULE
from services.cli.words import count, span

TRACK = 32  # columns of the time bar
RESULT_LINES = 40
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
    def booked(self) -> Booking:
        """Sums over all its attempts."""
        total = Booking()
        for event in self.events:
            b: Booking | None = getattr(event.data, "booked", None)
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


def told(event: Event) -> dict[str, Any]:
    """What the worker itself reported in ``event``, as it wrote it."""
    found = _tell.decode(event.raw).get("told") if event.raw else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def text(story: Story, columns: int = 0) -> str:
    """The history as a person reads it."""
    lines = [f"TASK {story.task}", RULE, *_text_lines(story), "", *_facts(story), ""]
    lines += _track_lines(story, columns)
    result = told(story.events[-1]).get("result") if story.events else None
    if isinstance(result, str) and result.strip():
        found = result.strip().splitlines()
        lines += ["", "Result:", *(f"  {line}" for line in found[:RESULT_LINES])]
        if len(found) > RESULT_LINES:
            lines.append(f"  … {len(found) - RESULT_LINES:,} more lines: --json has them all")
    return "\n".join(clip(line, columns) for line in lines)


def _text_lines(story: Story) -> list[str]:
    submitted = story.last("task.submitted")
    if submitted is None:
        return []
    found = submitted.data.text.strip().splitlines()
    more = [f"  … {len(found) - 8:,} more lines"] if len(found) > 8 else []
    return [*(f"  {line}" for line in found[:8]), *more]


def _facts(story: Story) -> list[str]:
    rows: list[tuple[str, str]] = [("Status", story.status)]
    if story.waiting:
        rows.append(("Waits", story.waiting))
    submitted, delegated = story.last("task.submitted"), story.last("task.delegated")
    if submitted is not None:
        d = submitted.data
        rows.append(("Priority", d.priority))
        rows += [(n.capitalize(), v) for n in ("project", "retry_of") if (v := getattr(d, n))]
        if d.after:
            rows.append(("After", ", ".join(d.after)))
    if delegated is not None:
        d = delegated.data
        rows.append(("Kind", f"{d.kind} ({d.complexity}), estimate {d.estimate_tokens:,} tokens"))
        rows.append(("Route", f"{d.agent} with {d.model}: {d.reason}"))
        if escalated := story.last("task.escalated"):
            rows.append(("Escalated", f"{escalated.data.model}: {escalated.data.reason}"))
        if d.candidates:
            each = [f"{c.kind} {c.score} ({c.agent}/{c.model})" for c in d.candidates]
            rows.append(("Candidates", ", ".join(each)))
    dispatched = story.last("task.dispatched")
    if dispatched is not None:
        d = dispatched.data
        most = f" of {submitted.data.max_attempts}" if submitted is not None else ""
        rows.append(("Worker", f"{d.worker}, attempt {d.attempt}{most}"))
        if d.why:
            rows.append(("", d.why))
        rows += _spent(story.booked, _own_cost(story))
    return [f"{name + ':' if name else '':<12}{value}" for name, value in rows]


def _own_cost(story: Story) -> int | None:
    """What the agent itself says that its attempts cost, nano-dollars; None: it says nothing."""
    ends = (e for e in story.events if isinstance(e.data, AttemptEnd) and e.origin)
    figures = [told(event).get("cost_usd") for event in ends]
    nanos: list[int] = []
    for figure in figures:
        if isinstance(figure, int | float | str) and not isinstance(figure, bool):
            with contextlib.suppress(ValueError):
                nanos.append(nanos_of(figure))
    return sum(nanos) if nanos else None


def _spent(b: Booking, own: int | None) -> list[tuple[str, str]]:
    parts = [
        f"{name} {getattr(b, name.replace(' ', '_') + '_tokens'):,}"
        for name in ("input", "output", "cache read", "cache write")
        if getattr(b, name.replace(" ", "_") + "_tokens")
    ]
    inside = f" ({', '.join(parts)})" if parts else ""
    guess = (
        "; estimated: no usage was reported (a command tells it by ASB_USAGE_FILE or --format)"
        if b.estimated
        else ""
    )
    beside = f" (its own figure: {dollars(own)})" if own is not None and own != b.nanos else ""
    rows = [("Tokens", f"{b.tokens:,}{inside}{guess}"), ("Cost", dollars(b.nanos) + beside)]
    if b.disputed_tokens or b.disputed_nanos:
        money = dollars(b.disputed_nanos)
        rows.append(
            ("Disputed", f"{b.disputed_tokens:,} tokens, {money}, not charged: asb correct")
        )
    return rows


# -- the time bar ------------------------------------------------------------------------------


def _track_lines(story: Story, columns: int) -> list[str]:
    events = story.events
    if not events:
        return []
    start, whole = events[0].at, max(1, events[-1].at - events[0].at)
    track = TRACK if columns == 0 or columns >= 90 else 12
    scale = f"{span(whole)}, to scale" if len(events) > 1 else "just taken in"
    lines = [f"History ({views.iso(start)}, {scale}):"]
    before = 0
    for event in events:
        here = (event.at - start) * (track - 1) // whole if len(events) > 1 else 0
        bar = " " * before + "─" * (here - before) + "●"
        lines.append(
            f"  {_offset(event.at - start):>11}  {bar:<{track}}  "
            f"{event.type.removeprefix('task.'):<17}{describe(event)}"
        )
        before = here
    return lines


def _offset(micros: int) -> str:
    """``+0.004 s``: thousandths while they mean something."""
    if micros < 60_000_000:
        return f"+{micros // 1_000_000}.{micros % 1_000_000 // 1000:03d} s"
    return f"+{span(micros)}"


def describe(event: Event) -> str:
    """What an event says beyond its type, in a few words; for every type of the log."""
    d = event.data
    says = _DESCRIBE.get(event.type)
    words = says(d, event) if says is not None else ""
    booked: Booking | None = getattr(d, "booked", None)
    if booked is not None and (booked.tokens or booked.nanos):
        how = " (estimated)" if booked.estimated else ""
        spent = f"{booked.tokens:,} tokens{how}, {dollars(booked.nanos)}"
        words = f"{words} · {spent}" if words else spent
    flag = getattr(d, "flag", "") or (booked.flag if booked is not None else "")
    if flag:
        words = f"{words} · flagged: {flag}".lstrip(" ·")
    if booked is not None and (booked.disputed_tokens > 0 or booked.disputed_nanos > 0):
        more = f"{booked.disputed_tokens:,} tokens, {dollars(booked.disputed_nanos)} disputed"
        words = f"{words} · {more}" if words else more
    if getattr(d, "stale", False):
        words = f"{words} · of an older attempt, without effect".lstrip(" ·")
    return words


def _submitted(d: Any, event: Event) -> str:
    return f"{d.priority}, through {event.origin.partition(' ')[0] or event.source}"


def _failed(d: Any, event: Event) -> str:
    again = f"; again in {span(d.retry_at - event.at)}" if d.retry_at else "; for good"
    return f"{clip(first_line(d.error), 100)}{again}"


def _joined(d: Any, _event: Event) -> str:
    serves = " ".join((d.agent or "any agent", *d.models))
    return f"{d.worker}, {count(d.capacity, 'task')} at once, serves {serves}"


def _alert(d: Any, _event: Event) -> str:
    scale = (dollars(d.usage, 2), dollars(d.budget, 2)) if d.unit == "money" else None
    usage, budget = scale or (f"{d.usage:,}", f"{d.budget:,}")
    return f"{d.level}: {d.scope} {d.unit}/{d.window} at {usage} of {budget}"


def _foreign(d: Any, _event: Event) -> str:
    there = f"at {d.first}" if d.first == d.last else f"from {d.first} to {d.last}"
    return f"{count(d.count, 'entry', 'entries')} that asb did not write, {there}: skipped"


_DESCRIBE: dict[str, Callable[[Any, Event], str]] = {
    "log.went_back": lambda d, _: (
        f"from {d.was} to {d.now}; what came between is forgotten, with what it used"
    ),
    "log.trimmed": lambda d, _: f"cut by hand: it begins at {d.first} now",
    "log.foreign_entries": _foreign,
    "task.submitted": _submitted,
    "task.delegated": lambda d, _: f"{d.kind} → {d.agent}/{d.model}",
    "task.deferred": lambda d, _: d.reason,
    "task.dispatched": lambda d, _: (
        f"attempt {d.attempt} to {d.worker} ({d.agent or 'any'}/{d.model}), "
        f"holds {d.hold_tokens:,} tokens, {dollars(d.hold_nanos)}"
    ),
    "task.delivered": lambda d, _: f"attempt {d.attempt}",
    "task.started": lambda d, _: f"attempt {d.attempt}",
    "task.completed": lambda d, _: f"attempt {d.attempt}",
    "task.failed": _failed,
    "task.cancel_requested": lambda d, _: d.reason,
    "task.cancelled": lambda d, _: d.reason,
    "task.requeued": lambda d, _: d.reason,
    "hold.extended": lambda d, _: f"{d.tokens:,} tokens, {dollars(d.nanos)}",
    "hold.refused": lambda d, _: f"{d.action}: {d.reason}",
    "redis.evicts": lambda d, _: f"maxmemory-policy {d.policy}, {d.evicted:,} keys dropped",
    "redis.keeps": lambda d, _: f"no key is dropped any more; {d.evicted:,} were",
    "clock.stepped": lambda d, _: f"{'-' if d.by < 0 else '+'}{span(abs(d.by))}",
    "clock.confirmed": lambda d, _: d.reason,
    "door.opened": lambda d, _: f"{d.door} for {d.name}",
    "usage.recorded": lambda d, _: f"{d.agent} {d.model}".strip(),
    "usage.corrected": lambda d, _: (
        f"{d.action} attempt {d.attempt}: {d.reason}" if d.action else d.agent
    ),
    "progress.updated": lambda d, _: f"{d.agent} {d.task}",
    "worker.joined": _joined,
    "worker.refused": lambda d, _: f"{d.worker}: session {d.holder} has the name",
    "worker.left": lambda d, _: d.worker,
    "worker.lost": lambda d, _: f"{d.worker}: {d.evidence}",
    "worker.paused": lambda d, _: f"{d.worker} {d.reason}".strip(),
    "worker.resumed": lambda d, _: d.worker,
    "policy.changed": lambda d, _: (
        f"{count(len(d.limits), 'limit')}, {count(len(d.prices), 'price')}: {d.reason}"
    ),
    "delegator.learnt": lambda d, _: (
        f"from {count(d.rows, 'example')}, {count(len(d.overlay), 'feature')}: {d.reason}"
    ),
    "task.escalated": lambda d, _: f"{d.agent}/{d.model}: {d.reason}",
    "alert.raised": _alert,
    "report.issued": lambda d, _: f"{d.date} version {d.version}",
}


def view(story: Story) -> dict[str, Any]:
    """``asb task ID --json``."""
    submitted = story.last("task.submitted")
    b = story.booked
    return {
        "task": story.task,
        "status": story.status,
        "waiting": story.waiting or None,
        "text": submitted.data.text if submitted is not None else None,
        "tokens": b.tokens,
        "cost": dollars(b.nanos),
        "cost_nanos": b.nanos,
        "disputed_tokens": b.disputed_tokens,
        "disputed_cost_nanos": b.disputed_nanos,
        "result": told(story.events[-1]).get("result") if story.events else None,
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
