"""Usage that contradicts itself or cannot be read: how often, by whom, and what was the last."""

from __future__ import annotations

from projections.records import Flagged
from projections.state import State

AGENTS_MAX = 1_000  # names come from outside; the rest share one record
OTHERS = "other"
RECENT_US = 24 * 3_600_000_000


def add(state: State, agent: str, at: int, flag: str) -> None:
    """Count ``flag`` if it says anything."""
    if not flag:
        return
    if agent not in state.flags and len(state.flags) >= AGENTS_MAX:
        agent = OTHERS
    before = state.flags.get(agent, Flagged())
    state.journal.put(state.flags, agent, Flagged(before.count + 1, at, state.meta.log_id, flag))


def recent(state: State, now: int) -> dict[str, Flagged]:
    """Agents whose last flag is less than a day old, the newest first."""
    fresh = [item for item in state.flags.items() if now - item[1].at < RECENT_US]
    return dict(sorted(fresh, key=lambda item: (-item[1].at, item[0])))
