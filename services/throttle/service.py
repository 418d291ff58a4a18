"""Alerts out on their channel: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from events.envelope import Event
from events.keys import Keys
from events.money import NANOS_PER_DOLLAR
from events.policy import AlertRaised
from projections.state import State
from services.runtime.client import Client


class Alerts:
    """Publishes ``alert.raised`` on ``asb:alerts`` in the seed's shape. A message may repeat after
    a crash and carries its event's id; the event, not the message, is what is kept."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._pending: list[bytes] = []
        self._wake = anyio.Event()

    def feed(self, events: Sequence[Event], state: State) -> None:
        for event in events:
            if type(event.data) is AlertRaised:
                self._pending.append(msgspec.json.encode(message(event)))
                self._wake.set()

    def restored(self, state: State) -> None:
        """Nothing to repeat: subscribers who were away read the log."""

    async def run(self) -> None:
        await self._wake.wait()
        self._wake = anyio.Event()
        while self._pending:
            await self._client.call("PUBLISH", self._keys.alerts_channel, self._pending[0])
            del self._pending[0]


def message(event: Event) -> dict[str, Any]:
    """An alert as subscribers see it: the seed's four fields, then more."""
    d = event.data
    money = d.unit == "money"
    scale = NANOS_PER_DOLLAR if money else 1
    return {
        "type": f"{'COST' if money else 'TOKEN' if d.unit == 'tokens' else 'TASK'}_BUDGET_WARNING"
        if d.kind == "budget"
        else "THROTTLE_LEVEL",
        "usage": d.usage / scale if money else d.usage,
        "budget": d.budget / scale if money else d.budget,
        "percentage": round(d.usage * 100 / d.budget, 2) if d.budget else 100,
        "level": d.level,
        "scope": d.scope,
        "unit": d.unit,
        "window": d.window,
        "usage_exact": d.usage,
        "budget_exact": d.budget,
        "event": event.id,
        "log_id": event.log_id,
    }
