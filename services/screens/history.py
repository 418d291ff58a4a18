"""One task's history as people read it: facts, and its events on a bar to scale. PURE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from events.envelope import Event, text_of
from events.money import dollars
from events.task import Charge
from projections import views
from projections.format import count, first_line, span
from services.client.story import Story, result_of
from services.queries.history import denials, own_cost
from services.screens.status import RULE
from services.screens.text import clip

TRACK = 32  # columns of the time bar


RESULT_LINES = 40


def history_text(story: Story, columns: int = 0) -> str:
    """The history as a person reads it."""
    lines = [f"TASK {story.task}", RULE, *_text_lines(story), "", *_facts(story), ""]
    lines += _track_lines(story, columns)
    result = result_of(story.events)
    if isinstance(result, str) and result.strip():
        result_lines = result.strip().splitlines()
        lines += ["", "Result:", *(f"  {line}" for line in result_lines[:RESULT_LINES])]
        if len(result_lines) > RESULT_LINES:
            lines.append(
                f"  … {len(result_lines) - RESULT_LINES:,} more lines: --json has them all"
            )
    return "\n".join(clip(line, columns) for line in lines)


def _text_lines(story: Story) -> list[str]:
    submitted = story.last("task.submitted")
    if submitted is None:
        return []
    text_lines = text_of(submitted, "text").strip().splitlines()
    more = [f"  … {len(text_lines) - 8:,} more lines"] if len(text_lines) > 8 else []
    return [*(f"  {line}" for line in text_lines[:8]), *more]


def _facts(story: Story) -> list[str]:
    rows: list[tuple[str, str]] = [("Status", story.status)]
    if story.waiting:
        rows.append(("Waits", story.waiting))
    submitted, delegated = story.last("task.submitted"), story.last("task.delegated")
    if submitted is not None:
        payload = submitted.data
        rows.append(("Priority", payload.priority))
        rows += [(n.capitalize(), v) for n in ("project", "retry_of") if (v := getattr(payload, n))]
        if payload.after:
            rows.append(("After", ", ".join(payload.after)))
    if delegated is not None:
        payload = delegated.data
        estimate = f"estimate {payload.estimate_tokens:,} tokens"
        rows.append(("Kind", f"{payload.kind} ({payload.complexity}), {estimate}"))
        why = text_of(delegated, "reason")
        rows.append(("Route", f"{payload.agent} with {payload.model}: {why}"))
        if escalated := story.last("task.escalated"):
            rows.append(("Escalated", f"{escalated.data.model}: {escalated.data.reason}"))
        if payload.candidates:
            each = [f"{c.kind} {c.score} ({c.agent}/{c.model})" for c in payload.candidates]
            rows.append(("Candidates", ", ".join(each)))
    dispatched = story.last("task.dispatched")
    if dispatched is not None:
        payload = dispatched.data
        tries = f" of {submitted.data.max_attempts}" if submitted is not None else ""
        rows.append(("Worker", f"{payload.worker}, attempt {payload.attempt}{tries}"))
        if payload.why:
            rows.append(("", payload.why))
        rows += _spent(story.charged, own_cost(story))
        number, tools = denials(story)
        if number:
            rows.append(("Refused", f"{count(number, 'permission')}: {', '.join(tools)}"))
    return [f"{name + ':' if name else '':<12}{value}" for name, value in rows]


def _spent(charge: Charge, own: int | None) -> list[tuple[str, str]]:
    parts = [
        f"{name} {getattr(charge, name.replace(' ', '_') + '_tokens'):,}"
        for name in ("input", "output", "cache read", "cache write")
        if getattr(charge, name.replace(" ", "_") + "_tokens")
    ]
    inside = f" ({', '.join(parts)})" if parts else ""
    guess = (
        "; estimated: no usage was reported (a command tells it by ASB_USAGE_FILE or --format)"
        if charge.estimated
        else ""
    )
    beside = f" (its own figure: {dollars(own)})" if own is not None and own != charge.nanos else ""
    rows = [
        ("Tokens", f"{charge.tokens:,}{inside}{guess}"),
        ("Cost", dollars(charge.nanos) + beside),
    ]
    if charge.disputed_tokens or charge.disputed_nanos:
        money = dollars(charge.disputed_nanos)
        rows.append(
            ("Disputed", f"{charge.disputed_tokens:,} tokens, {money}, not charged: asb correct")
        )
    return rows


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
    payload = event.data
    says = _DESCRIBE.get(event.type)
    words = says(payload, event) if says is not None else ""
    charged: Charge | None = getattr(payload, "charged", None)
    if charged is not None and (charged.tokens or charged.nanos):
        how = " (estimated)" if charged.estimated else ""
        spent = f"{charged.tokens:,} tokens{how}, {dollars(charged.nanos)}"
        words = f"{words} · {spent}" if words else spent
    flag = getattr(payload, "flag", "") or (charged.flag if charged is not None else "")
    if flag:
        words = f"{words} · flagged: {flag}".lstrip(" ·")
    if charged is not None and (charged.disputed_tokens > 0 or charged.disputed_nanos > 0):
        more = f"{charged.disputed_tokens:,} tokens, {dollars(charged.disputed_nanos)} disputed"
        words = f"{words} · {more}" if words else more
    if getattr(payload, "stale", False):
        words = f"{words} · of an older attempt, without effect".lstrip(" ·")
    return words


def _submitted(payload: Any, event: Event) -> str:
    return f"{payload.priority}, through {event.origin.partition(' ')[0] or event.source}"


def _failed(payload: Any, event: Event) -> str:
    again = f"; again in {span(payload.retry_at - event.at)}" if payload.retry_at else "; for good"
    return f"{clip(first_line(text_of(event, 'error')), 100)}{again}"


def _joined(payload: Any, _event: Event) -> str:
    serves = " ".join((payload.agent or "any agent", *payload.models))
    return f"{payload.worker}, {count(payload.capacity, 'task')} at once, serves {serves}"


def _alert(payload: Any, _event: Event) -> str:
    scale = (
        (dollars(payload.usage, 2), dollars(payload.budget, 2)) if payload.unit == "money" else None
    )
    usage, budget = scale or (f"{payload.usage:,}", f"{payload.budget:,}")
    return (
        f"{payload.level}: {payload.scope} {payload.unit}/{payload.window} at {usage} of {budget}"
    )


def _foreign(payload: Any, _event: Event) -> str:
    there = (
        f"at {payload.first}"
        if payload.first == payload.last
        else f"from {payload.first} to {payload.last}"
    )
    return f"{count(payload.count, 'entry', 'entries')} that asb did not write, {there}: skipped"


_DESCRIBE: dict[str, Callable[[Any, Event], str]] = {
    "log.went_back": lambda payload, _: (
        f"from {payload.was} to {payload.now}; what came between is forgotten, with what it used"
    ),
    "log.trimmed": lambda payload, _: f"cut by hand: it begins at {payload.first} now",
    "log.foreign_entries": _foreign,
    "task.submitted": _submitted,
    "task.delegated": lambda payload, _: f"{payload.kind} → {payload.agent}/{payload.model}",
    "task.deferred": lambda payload, _: payload.reason,
    "task.dispatched": lambda payload, _: (
        f"attempt {payload.attempt} to {payload.worker} "
        f"({payload.agent or 'any'}/{payload.model}), "
        f"holds {payload.hold_tokens:,} tokens, {dollars(payload.hold_nanos)}"
    ),
    "task.delivered": lambda payload, _: f"attempt {payload.attempt}",
    "task.started": lambda payload, _: f"attempt {payload.attempt}",
    "task.completed": lambda payload, _: f"attempt {payload.attempt}",
    "task.failed": _failed,
    "task.cancel_requested": lambda _, event: text_of(event, "reason"),
    "task.cancelled": lambda _, event: text_of(event, "reason"),
    "task.requeued": lambda payload, _: payload.reason,
    "hold.extended": lambda payload, _: f"{payload.tokens:,} tokens, {dollars(payload.nanos)}",
    "hold.refused": lambda payload, _: f"{payload.action}: {payload.reason}",
    "redis.evicts": lambda payload, _: (
        f"maxmemory-policy {payload.policy}, {payload.evicted:,} keys dropped"
    ),
    "redis.keeps": lambda payload, _: f"no key is dropped any more; {payload.evicted:,} were",
    "clock.stepped": lambda payload, _: f"{'-' if payload.by < 0 else '+'}{span(abs(payload.by))}",
    "clock.confirmed": lambda _, event: text_of(event, "reason"),
    "account.limited": lambda payload, event: (
        f"{payload.account}: {first_line(text_of(event, 'evidence'))}"
    ),
    "account.released": lambda payload, event: (
        f"{payload.account} {text_of(event, 'reason')}".strip()
    ),
    "intake.opened": lambda payload, _: f"{payload.intake} for {payload.name}",
    "usage.recorded": lambda payload, _: f"{payload.agent} {payload.model}".strip(),
    "usage.corrected": lambda payload, event: (
        f"{payload.action} attempt {payload.attempt}: {text_of(event, 'reason')}"
        if payload.action
        else payload.agent
    ),
    "progress.updated": lambda payload, _: f"{payload.agent} {payload.task}",
    "worker.joined": _joined,
    "worker.refused": lambda payload, _: f"{payload.worker}: session {payload.holder} has the name",
    "worker.left": lambda payload, _: payload.worker,
    "worker.lost": lambda payload, event: f"{payload.worker}: {text_of(event, 'evidence')}",
    "worker.paused": lambda payload, event: f"{payload.worker} {text_of(event, 'reason')}".strip(),
    "worker.resumed": lambda payload, _: payload.worker,
    "policy.changed": lambda payload, event: (
        f"{count(len(payload.limits), 'limit')}, {count(len(payload.prices), 'price')}: "
        + text_of(event, "reason")
    ),
    "delegator.learnt": lambda payload, event: (
        f"from {count(payload.rows, 'example')}: {text_of(event, 'reason')}"
    ),
    "task.escalated": lambda payload, _: f"{payload.agent}/{payload.model}: {payload.reason}",
    "alert.raised": _alert,
    "report.issued": lambda payload, _: f"{payload.date} version {payload.version}",
}
