"""Progress documents as people and programs read them: what stands beside an agent's own words."""

from __future__ import annotations

from typing import Any

from events.document import ENDED
from events.money import dollars
from projections.records import Outcome, Progress, TaskRecord
from projections.state import State
from projections.views import iso


def facts(state: State, agent: str, task: str, record: Progress) -> dict[str, Any]:
    """What asb knows of a progress document: what stands beside it in the view."""
    known = state.record_of(task)
    known_facts: dict[str, Any] = {
        "as_of": state.meta.log_id,
        "document": record.log_id,
        "at": iso(record.at),
        "agent": agent,
        "task": task,
        "status": record.status,
        "progress": record.percent,
        "tokens_total": record.seen.total,
        "cost": dollars(record.nanos),
        "cost_nanos": record.nanos,
        "worker": "",
        "attempt": record.attempt,
        "flagged": bool(record.flag),
    }
    if record.unpriced:
        known_facts["unpriced"] = True
    if record.flag:
        known_facts["flag"] = record.flag
    if record.attempt and known is not None:
        known_facts["worker"] = known.worker
    if known is not None:
        known_facts["task_status"] = known.status
    return known_facts


def is_over(state: State, task: str, record: Progress) -> bool:
    """Whether nothing more is to come: its key may expire."""
    known: TaskRecord | Outcome | None = state.record_of(task)
    if known is None:
        return record.ended
    return known.status in ENDED
