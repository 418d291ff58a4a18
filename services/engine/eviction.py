"""A server that drops keys is told of once, until that is mended. PURE."""

from __future__ import annotations

from events.log import after
from events.server import RedisEvicts, RedisKeeps
from projections.state import State
from services.decider import Decider, Decisions, Inputs, decided

BY = "eviction"
KEEPS = ("noeviction", "unknown")  # the second: it does not say


def decide(state: State, _now: int, inputs: Inputs) -> Decisions:
    """One event when the server may drop keys or has dropped some, and one when that is over."""
    meta, look = state.meta, inputs.eviction
    if look is None or not meta.events:
        return
    if meta.eviction_said and after(meta.eviction_said, look.place):
        return  # the look is older than what the log says about it
    may_evict = look.policy not in KEEPS
    if meta.evicts:
        if not may_evict:
            yield decided(RedisKeeps(look.evicted, look.run), BY)
        return
    known = meta.evicted if meta.evicted_run == look.run else 0
    if may_evict or look.evicted > known:
        yield decided(RedisEvicts(look.policy, look.evicted, look.run), BY)


DECIDER = Decider(BY, decide, frozenset({RedisEvicts, RedisKeeps}))
