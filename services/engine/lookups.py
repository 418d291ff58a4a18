"""What a turn is told beside the state: idempotency keys, ended tasks, whose heartbeat stands."""

from __future__ import annotations

from collections.abc import Iterable

from events.keys import Keys
from events.worker import WorkerHeartbeat
from projections.state import State
from services.decider import IntakeEntry, Known
from services.intake.decide import holders, lookups
from services.intake.schema import DUPLICATE_DAYS
from services.store.client import Client
from services.store.log import Log


async def known(
    client: Client, keys: Keys, log: Log, state: State, entries: Iterable[IntakeEntry], now: int
) -> Known:
    """What the server knows of those that ``entries`` name. Raises RedisUnavailable."""
    ids, tasks = lookups(state, entries)
    names = sorted(holders(state, entries))
    if not ids and not tasks and not names:
        return Known()
    values = await client.pipeline(("GET", keys.worker(name)) for name in names)
    return Known(
        await log.taken_ids(ids, now, DUPLICATE_DAYS),
        await log.known_tasks(tasks),
        {n: WorkerHeartbeat.read(value).session for n, value in zip(names, values, strict=True)},
    )
