"""One, two and four buses on a Redis Cluster, their logs spread over its three primaries."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from events.keys import Keys
from services.store.client import SyncClient
from tests.bench.ground import Bus, Ground, bulk_submit, load_now
from tests.bench.measures import Figure, Plan, Spread, wave
from tests.bench.titles import titles
from tests.clusters import Cluster

COUNTS = (1, 2, 4)
SUBMITTED = 20_000  # to each bus
DONE = 1_500  # by each bus


def several_buses(_ground: Ground, plan: Plan) -> list[Figure]:
    """Submissions, and tasks end to end, of all buses together."""
    figures: list[Figure] = []
    with _cluster() as (cluster, ground):
        for count in COUNTS:
            named = f"{count} bus{'es' * (count > 1)} on a Cluster"
            takes = [_ingest(cluster, _spread(cluster, ground, count)) for _ in range(plan.repeats)]
            figures.append(_figure(f"{named}: submit", takes))
            takes = [
                _end_to_end(ground, _spread(cluster, ground, count), plan.tasks or DONE)
                for _ in range(plan.repeats)
            ]
            figures.append(_figure(f"{named}: e2e", takes))
    return figures


def _figure(name: str, rates: Sequence[float]) -> Figure:
    return Figure(name, "tasks/s", Spread.of(rates), 0, "printed", True, load=load_now())


class ClusterGround(Ground):
    """A Cluster in the place of the one server. There is no reference beside it."""

    def __init__(self, cluster: Cluster) -> None:
        self.url, self.fsync = cluster.url, "everysec"
        self.client = SyncClient(cluster.url)
        self._names = 0

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def _cluster() -> Generator[tuple[Cluster, Ground]]:
    with tempfile.TemporaryDirectory(prefix="asb-bench-") as folder:
        cluster = Cluster(Path(folder), replicas=False)
        try:
            cluster.start()
            with contextlib.closing(ClusterGround(cluster)) as ground:
                yield cluster, ground
        finally:
            cluster.stop()


def _spread(cluster: Cluster, ground: Ground, count: int) -> list[Keys]:
    """So many namespaces nobody used, whose logs lie on one primary after the other."""
    ground.client.everywhere("FLUSHALL", "SYNC")
    chosen: list[Keys] = []
    while len(chosen) < count:
        keys = ground.more_keys()
        wanted = cluster.primaries[len(chosen) % len(cluster.primaries)]
        if cluster.primary_of(keys.log) is wanted:
            chosen.append(keys)
    return chosen


def _ingest(cluster: Cluster, buses: Sequence[Keys]) -> float:
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(buses), spawning) as pool:
        for warm in [pool.submit(_submit, cluster.url, keys.namespace, 10) for keys in buses]:
            warm.result()
        began = time.monotonic()
        for done in [pool.submit(_submit, cluster.url, k.namespace, SUBMITTED) for k in buses]:
            done.result()
        return len(buses) * SUBMITTED / (time.monotonic() - began)


def _submit(url: str, namespace: str, count: int) -> None:
    with contextlib.closing(SyncClient(url)) as client:
        bulk_submit(client, Keys(namespace), titles(count))


def _end_to_end(ground: Ground, named: Sequence[Keys], count: int) -> float:
    buses = [Bus(ground, keys=keys) for keys in named]
    with ThreadPoolExecutor(len(buses)) as pool:
        began = time.monotonic()
        for done in [pool.submit(wave, bus, count) for bus in buses]:
            done.result()
        rate = len(buses) * count / (time.monotonic() - began)
    for bus in buses:
        bus.stop()
    return rate
