"""One task's history as plain data. PURE."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from events.envelope import Event, beside, text_of, words_of
from events.money import dollars
from events.secrets import masked_json
from events.task import AttemptEnd
from events.usage import UsageCompared
from projections import views
from projections.views import iso
from services.client.follow import Ended
from services.client.story import Story, result_of


def own_cost(story: Story) -> int | None:
    """What the agent itself says that its attempts cost, nano-dollars; None: it says nothing."""
    ends = (e for e in story.events if isinstance(e.data, AttemptEnd) and e.origin)
    figures = [beside(event).reported.cost_nanos for event in ends]
    nanos = [figure for figure in figures if figure is not None]
    return sum(nanos) if nanos else None


def denials(story: Story) -> tuple[int, list[str]]:
    """How often its agents were refused a permission, and for which tools."""
    reports = [words_of(e) for e in story.events if isinstance(e.data, AttemptEnd) and e.origin]
    counts = [words.get("denials") for words in reports]
    tools = [
        tool for words in reports for tool in words.get("denied") or () if isinstance(tool, str)
    ]
    return sum(n for n in counts if type(n) is int), sorted(set(tools))


class TaskWorktree(msgspec.Struct, frozen=True):
    """The git worktree of an attempt, as its worker tells it. ``kept``: why it is there after the
    end, "" where it is gone; None before the end."""

    path: str
    branch: str
    kept: str | None = None


def worktree(event: Event) -> TaskWorktree | None:
    """That of which an event tells."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(words_of(event).get("worktree"), TaskWorktree)
    return None


def newest_worktree(story: Story) -> TaskWorktree | None:
    """That of its newest attempt which had one."""
    return next(filter(None, map(worktree, reversed(story.events))), None)


def compared(story: Story) -> dict[int, tuple[str, int, dict[str, int]]]:
    """By attempt: the meter that is charged and its counted tokens, and those of the others."""
    attempts: dict[int, tuple[str, int, dict[str, int]]] = {}
    for payload in (event.data for event in story.events):
        if isinstance(payload, UsageCompared):
            entry = attempts.setdefault(payload.attempt, (payload.meter, payload.tokens, {}))
            entry[2][payload.against] = payload.other_tokens
    return attempts


def history_view(story: Story) -> dict[str, Any]:
    """``asb task ID --json``."""
    submitted = story.last("task.submitted")
    charged = story.charged
    return {
        "task": story.task,
        "status": story.status,
        "waiting": story.waiting or None,
        "text": text_of(submitted, "text") if submitted is not None else None,
        "tokens": charged.tokens,
        "cost": dollars(charged.nanos),
        "cost_nanos": charged.nanos,
        "disputed_tokens": charged.disputed_tokens,
        "disputed_cost_nanos": charged.disputed_nanos,
        "meters": [
            {"attempt": attempt, "charged": meter, "tokens": {meter: tokens, **others}}
            for attempt, (meter, tokens, others) in compared(story).items()
        ],
        "worktree": newest_worktree(story),
        "result": result_of(story.events),
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
        "data": msgspec.Raw(masked_json(event.raw)),
    }


def ended_view(ended: Ended) -> dict[str, Any]:
    """An outcome for programs."""
    view: dict[str, Any] = {"task": ended.task, "status": ended.status}
    if ended.error:
        view["error"] = ended.error
    story = ended.story
    if story is not None and (end := story.end) is not None:
        charged, worker = story.charged, story.last("task.dispatched")
        view |= {
            "worker": worker.data.worker if worker is not None else None,
            "attempt": end.data.attempt,
            "tokens": charged.tokens,
            "cost": dollars(charged.nanos),
            "cost_nanos": charged.nanos,
            "result": result_of(story.events),
            "ended_at": iso(end.at),
            "took_us": story.took_us,
        }
    return view
