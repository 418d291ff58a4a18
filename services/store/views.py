"""Writes views: at most every 100 ms, never an older one over a newer one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from events.envelope import Event
from projections.state import State
from services.store.client import Client
from services.store.scripts import script

PAUSE_S = 0.1
LOOK_S = 5.0  # how often it is looked whether the views still stand there
Render = Callable[[State], Mapping[str, Any]]


class Views:
    """Keeps one Redis key per view, rendered from committed state."""

    def __init__(self, client: Client, views: Mapping[str, Render]) -> None:
        self._client, self._renders = client, views
        self._state: State | None = None
        self._stale = anyio.Event()

    def feed(self, events: Sequence[Event], state: State) -> None:
        self.restored(state)

    def restored(self, state: State) -> None:
        self._state = state
        self._stale.set()

    async def run(self) -> None:
        """Write the views once they are stale. Raises RedisUnavailable."""
        with anyio.move_on_after(LOOK_S):
            await self._stale.wait()
        if not self._stale.is_set() and await self._stand():
            return
        state = self._state
        if state is None or state.ahead:
            await anyio.sleep(0.001)  # a turn is on its way to the log: its outcome is not known
            return
        self._stale = anyio.Event()
        try:
            log_id = state.meta.log_id
            rendered = {k: msgspec.json.encode(r(state)) for k, r in self._renders.items()}
            for key, value in rendered.items():
                await script("view")(self._client, [key], [log_id, value, 0])
        except BaseException:
            self._stale.set()
            raise
        await anyio.sleep(PAUSE_S)

    async def _stand(self) -> bool:
        """Whether every view is there, and nothing else in its place."""
        there = await self._client.types(self._renders)
        return all(there.get(key) == "string" for key in self._renders)
