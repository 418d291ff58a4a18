"""Progress documents: the newest of each agent and task, as its agent wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.envelope import Event
from projections import throttle, usage

if TYPE_CHECKING:
    from projections.state import State


class Progress(msgspec.Struct, array_like=True, gc=False):
    """Where the newest document lies on the log, and the running totals it told."""

    log_id: str
    at: int


def key_of(agent: str, task: str) -> str:
    return f"{agent}:{task}"


def updated(state: State, event: Event) -> None:
    d = event.data
    state.undo.put(state.progress, key_of(d.agent, d.task), Progress(event.log_id, event.at))
    if d.booked is not None:
        throttle.book(state, event.at, d.booked)
        usage.book(state, event.at, d.booked)
