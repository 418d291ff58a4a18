"""Looks whether the server evicts keys, or might: it must not while a bus stands on it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from projections.state import State
from services.decider import EvictionLook, Inputs
from services.store.client import Client
from services.store.health import NO_EVICTION, evicts, read_facts

logger = logging.getLogger("asb")


LOOK_S = 3.0


class EvictionWatch:
    """Looks every few seconds; the next turn decides whether that is to be told of."""

    def __init__(self, client: Client, inputs: Inputs) -> None:
        self._client, self._inputs = client, inputs
        self._warned = False

    async def look(self, state: Callable[[], State], wake: Callable[[], None]) -> None:
        """One look, then a pause. ``wake`` lets a turn see what was found."""
        place = state().meta.log_id
        facts = await read_facts(self._client)
        look = EvictionLook(place, facts.maxmemory_policy, facts.evicted_keys, facts.run_id)
        before, self._inputs.eviction = self._inputs.eviction, look
        if before is None or (before.policy, before.evicted) != (look.policy, look.evicted):
            wake()
        self._warn(evicts(facts), facts.maxmemory_policy)
        await anyio.sleep(LOOK_S)

    def _warn(self, may_evict: bool, policy: str) -> None:
        if may_evict and not self._warned:
            logger.error(
                "Redis may evict keys, the log among them: maxmemory-policy is %s; hint: %s",
                policy,
                NO_EVICTION,
            )
        elif self._warned and not may_evict:
            logger.warning("Redis keeps every key again")
        self._warned = may_evict
