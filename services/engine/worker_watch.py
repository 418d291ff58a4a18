"""Looks for the workers' heartbeats: ``asb:worker:<name>`` holds the session that renews it.

All time here is our own monotonic clock. The keys' expiry follows the server's wall clock, which
may step: forward, and every key is gone until its worker renews it; back, and a dead worker's key
stays. So only what was seen at many looks counts, and a key that lives longer than a lease does
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from events.keys import Keys
from events.worker import WorkerHeartbeat
from projections.records import Worker
from services.runtime.clock import elapsed
from services.store.client import Client

LOOK_S = 1.0  # pause between two looks
UNWATCHED_S = 3.0  # after a longer gap between two looks nothing is known of any worker
EXPIRY_SLACK_MS = 1_000


class WorkerWatch:
    """What the last looks saw of each living session."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._absent_since: dict[str, float] = {}  # by session: absent at every look since then
        self._looked_at = self._found_at = elapsed()

    def found_again(self) -> None:
        """The server answers after a gap, or its clock has stepped: looking begins anew."""
        self._absent_since.clear()
        self._looked_at = self._found_at = elapsed()

    def seen(self) -> tuple[Mapping[str, int], int]:
        """For how long (µs) the heartbeat of each session has been absent at every look, and for
        how long the server has been looked at without a gap."""
        found_us = int((self._now() - self._found_at) * 1_000_000)
        if not self._absent_since:
            return {}, found_us
        looked_at, absent = self._looked_at, self._absent_since.items()
        return {name: int((looked_at - since) * 1_000_000) for name, since in absent}, found_us

    async def look(self, workers: Iterable[Worker]) -> None:
        """Look once at the heartbeats of ``workers``. Raises RedisUnavailable."""
        alive = list(workers)
        values = await self._client.all(
            command
            for worker in alive
            for key in (self._keys.worker(worker.name),)
            for command in (("GET", key), ("PTTL", key))
        )
        self._looked_at = now = self._now()
        before, self._absent_since = self._absent_since, {}
        for worker, value, left_ms in zip(alive, values[::2], values[1::2], strict=True):
            if not _is_renewed(worker, value, left_ms):
                self._absent_since[worker.session] = before.get(worker.session, now)

    def _now(self) -> float:
        """The time by our clock; after a gap in looking, that of a new beginning."""
        now = elapsed()
        if now - self._looked_at <= UNWATCHED_S:
            return now
        self.found_again()
        return self._found_at


def _is_renewed(worker: Worker, value: object, left_ms: int) -> bool:
    """Whether this worker itself has renewed its heartbeat lately. A key with more than a lease to
    live was written before the server's clock stepped back."""
    if WorkerHeartbeat.read(value).session != worker.session:
        return False
    return left_ms <= worker.lease_s * 1_000 + EXPIRY_SLACK_MS
