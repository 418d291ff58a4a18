"""Usage as it is charged: the totals at ``asb:agents:token:usage``, and a feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from events.envelope import Event
from events.keys import Keys
from projections import views
from projections.state import State
from services.projector import Projector, Setup, Views
from services.store.client import Client

PAUSE_S = 0.1


class UsageFeed(Projector):
    """Publishes what was charged since the last message, summed per agent."""

    def __init__(self, client: Client, keys: Keys) -> None:
        super().__init__()
        self._client, self._keys = client, keys
        self._sums: dict[str, list[int]] = {}
        self._as_of = ""

    def feed(self, events: Sequence[Event], state: State) -> None:
        for event in events:
            charged = getattr(event.data, "charged", None)
            if charged is not None and (charged.tokens or charged.nanos):
                sums = self._sums.setdefault(charged.agent, [0, 0])
                sums[0] += charged.tokens
                sums[1] += charged.nanos
                self._as_of = event.log_id
                self.wake()

    def restored(self, state: State) -> None:
        """Messages are not repeated; the totals stand in the views."""

    async def flush(self, woken: bool) -> None:
        """Publish the sums on ``asb:tokens:usage``; what cannot be sent now is not sent later."""
        sums, self._sums = self._sums, {}
        if sums:
            agents = {name: {"tokens": t, "cost_nanos": n} for name, (t, n) in sums.items()}
            message: dict[str, Any] = {
                "type": "TOKEN_USAGE",
                "tokens": sum(t for t, _ in sums.values()),
                "agents": agents,
                "as_of": self._as_of,
            }
            await self._client.call(
                "PUBLISH", self._keys.usage_channel, msgspec.json.encode(message)
            )
        await anyio.sleep(PAUSE_S)


def projectors(setup: Setup) -> list[Projector]:
    """What the usage service projects."""
    client, keys = setup.client, setup.keys
    return [Views(client, {keys.token_usage: views.token_usage_view}), UsageFeed(client, keys)]
