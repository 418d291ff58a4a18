"""Whether the server was last said to drop keys, and how many it had dropped by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.envelope import Event
from events.server import RedisEvicts

if TYPE_CHECKING:
    from projections.state import State


def said(state: State, event: Event) -> None:
    """The server began to drop keys, or ended it."""
    meta, payload = state.meta, event.data
    meta.evicts = type(payload) is RedisEvicts
    meta.evicted, meta.evicted_run = payload.evicted, payload.run
    meta.eviction_said = event.log_id
