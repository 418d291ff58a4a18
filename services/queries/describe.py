"""What an event says beyond its type, in a few words; for every type of the log. PURE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from events.envelope import Event, text_of
from events.money import dollars
from events.task import Charge
from projections.format import count, first_line, span
from services.queries.history import worktree

ERROR_MAX = 100  # characters of an error that the words of a failure quote


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
    return f"{first_line(text_of(event, 'error'))[:ERROR_MAX]}{again}"


def _joined(payload: Any, _event: Event) -> str:
    serves = " ".join((payload.agent or "any agent", *payload.models))
    return f"{payload.worker}, {count(payload.capacity, 'task')} at once, serves {serves}"


def _state(payload: Any, _event: Event) -> str:
    about = f" for {payload.about}" if payload.about else ""
    by = f", by its {payload.by}" if payload.by else ""
    return f"{payload.worker}: {payload.state}{about}{by}"


def _delivered(payload: Any, event: Event) -> str:
    changes = text_of(event, "changes")
    by = f"by the agent's {payload.by}" if payload.by else ""
    return ", ".join(filter(None, (f"attempt {payload.attempt}", by, changes)))


def _started(payload: Any, event: Event) -> str:
    tree = worktree(event)
    return f"attempt {payload.attempt}{f', in {tree.path}' if tree is not None else ''}"


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


def _removed(payload: Any, _event: Event) -> str:
    entries = count(payload.entries, "entry", "entries")
    kept = f"; the server may still hold them in {payload.kept}" if payload.kept else ""
    return f"of {count(payload.tasks, 'task')}, {entries} of the log{kept}"


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
    "task.delivered": _delivered,
    "task.started": _started,
    "task.completed": lambda payload, _: f"attempt {payload.attempt}",
    "task.failed": _failed,
    "task.cancel_requested": lambda _, event: text_of(event, "reason"),
    "task.forgotten": lambda _payload, _event: "nothing shows its words from here on",
    "words.removed": _removed,
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
    "usage.compared": lambda payload, _: (
        f"{payload.meter} {payload.tokens:,}, {payload.against} {payload.other_tokens:,}: "
        f"{payload.difference:+,} tokens"
    ),
    "progress.updated": lambda payload, _: f"{payload.agent} {payload.task}",
    "worker.joined": _joined,
    "worker.refused": lambda payload, _: f"{payload.worker}: session {payload.holder} has the name",
    "worker.left": lambda payload, _: payload.worker,
    "worker.lost": lambda payload, event: f"{payload.worker}: {text_of(event, 'evidence')}",
    "worker.state": _state,
    "worker.twin": lambda payload, _: (
        f"{payload.worker} still runs attempt {payload.attempt} of {payload.task}, given out again"
    ),
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
