"""What a turn is told beside the state: idempotency keys, ended tasks, whose heartbeat stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from events.keys import DUPLICATE_DAYS, Keys
from events.worker import WorkerHeartbeat
from projections.state import State
from services.decider import Decider, IntakeEntry, Known
from services.store.client import Client
from services.store.log import Log


class Lookups:
    """What the deciders of an engine ask for."""

    def __init__(self, client: Client, keys: Keys, log: Log, deciders: Iterable[Decider]) -> None:
        self._client, self._keys, self._log = client, keys, log
        self._asks = [decider.asks for decider in deciders if decider.asks is not None]

    async def known(self, state: State, entries: Collection[IntakeEntry], now: int) -> Known:
        """What the server knows of those that ``entries`` name. Raises RedisUnavailable."""
        asked = [asks(state, entries) for asks in self._asks]
        ids = {key for a in asked for key in a.ids}
        tasks = {task for a in asked for task in a.tasks}
        names = sorted({worker for a in asked for worker in a.workers})
        if not ids and not tasks and not names:
            return Known()
        values = await self._client.pipeline(("GET", self._keys.worker(name)) for name in names)
        return Known(
            await self._log.taken_ids(ids, now, DUPLICATE_DAYS),
            await self._log.known_tasks(tasks),
            {n: WorkerHeartbeat.read(v).session for n, v in zip(names, values, strict=True)},
        )
