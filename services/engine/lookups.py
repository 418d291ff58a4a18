"""What a turn is told beside the state: idempotency keys, ended tasks, whose heartbeat stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from events.keys import DUPLICATE_DAYS, Keys
from events.worker import WorkerHeartbeat
from projections.state import State
from services.decider import Asked, Decider, IntakeEntry, Known
from services.store.client import Client
from services.store.log import Log


class Lookups:
    """What the deciders of an engine ask for."""

    def __init__(self, client: Client, keys: Keys, log: Log, deciders: Iterable[Decider]) -> None:
        self._client, self._keys, self._log = client, keys, log
        self._asks = [decider.asks for decider in deciders if decider.asks is not None]

    def asked(self, state: State, entries: Collection[IntakeEntry]) -> Asked | None:
        """What the server has to be asked for; None for nothing."""
        ids, tasks, names = set[str](), set[str](), set[str]()
        for asks in self._asks:
            asked = asks(state, entries)
            ids.update(asked.ids)
            tasks.update(asked.tasks)
            names.update(asked.workers)
        return Asked(ids, tasks, names) if ids or tasks or names else None

    async def known(self, state: State, entries: Collection[IntakeEntry], now: int) -> Known:
        """What the server knows of those that ``entries`` name. Raises RedisUnavailable."""
        asked = self.asked(state, entries)
        if asked is None:
            return Known()
        ids, tasks, names = asked.ids, asked.tasks, sorted(asked.workers)
        values = await self._client.pipeline(("GET", self._keys.worker(name)) for name in names)
        return Known(
            await self._log.taken_ids(ids, now, DUPLICATE_DAYS),
            await self._log.known_tasks(tasks),
            {n: WorkerHeartbeat.read(v).session for n, v in zip(names, values, strict=True)},
        )
