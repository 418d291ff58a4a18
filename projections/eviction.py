"""Whether the server was last said to drop keys, and how many it had dropped by then."""

from __future__ import annotations

from events.envelope import Event
from events.server import RedisEvicts, RedisKeeps
from projections.state import State, folds


@folds(RedisEvicts, RedisKeeps)
def said(state: State, event: Event[RedisEvicts | RedisKeeps]) -> None:
    """The server began to drop keys, or ended it."""
    meta, payload = state.meta, event.data
    meta.evicts = type(payload) is RedisEvicts
    meta.evicted, meta.evicted_run = payload.evicted, payload.run
    meta.eviction_said = event.log_id
