"""What was reported beyond what is plausible, and waits for an operator's word."""

from __future__ import annotations

from typing import Any

from events.money import dollars
from projections import usage
from projections.records import ChargedAttempt
from projections.state import State
from projections.views import iso


def disputed_line(state: State) -> str:
    """What is disputed in all, in one line; "" for nothing."""
    total = usage.total(state.lifetime.values())
    if not total.disputed_tokens and not total.disputed_nanos:
        return ""
    return (
        f"Disputed: {total.disputed_tokens:,} tokens, {dollars(total.disputed_nanos)} reported "
        "beyond what is plausible, not charged: asb correct"
    )


def disputes(state: State) -> list[dict[str, Any]]:
    """What waits for a correction, the oldest first; attempts that still run in front."""
    running = [
        {
            "task": task.id,
            "attempt": task.attempt,
            "running": True,
            "at": iso(task.started_at or task.dispatched_at),
            "agent": task.run_agent,
            "tokens": task.used_tokens,
            "cost_nanos": task.used_nanos,
            "disputed_tokens": task.used.disputed_tokens,
            "disputed_cost_nanos": task.used.disputed_nanos,
        }
        for task in state.tasks.values()
        if task.used is not None and (task.used.disputed_tokens or task.used.disputed_nanos)
    ]
    ended = sorted(state.disputes.items(), key=lambda item: (item[1].at, item[0]))
    return [*running, *(_ended(key, charge) for key, charge in ended)]


def _ended(key: str, charge: ChargedAttempt) -> dict[str, Any]:
    return {
        "task": charge.task if charge.attempt else key,
        "attempt": charge.attempt,
        "running": False,
        "at": iso(charge.at),
        "agent": charge.agent,
        "tokens": charge.tokens,
        "cost_nanos": charge.nanos,
        "disputed_tokens": charge.disputed_tokens,
        "disputed_cost_nanos": charge.disputed_nanos,
    }
