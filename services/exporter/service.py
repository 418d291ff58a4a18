"""The exporter: serves the bus' figures to Prometheus, by HTTP on loopback.

It folds the log like every reader, so that a scrape reads memory and asks nobody. What only other
processes know it has asked Redis for, seconds before. Requests come in prometheus-client's threads;
the state is read on the event loop, where nothing folds meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from events.keys import Keys
from projections.state import State
from services.exporter import figures, processes
from services.exporter.catalogue import ROWS, Durations, Sample
from services.exporter.processes import Counted, Places, Polled
from services.projector import Projector, Reader, Setup
from services.runtime import VERSION
from services.runtime.clock import ServerClock, elapsed
from services.runtime.errors import (
    AsbError,
    CommandRefused,
    RedisUnavailable,
    RedisUnsuitable,
)
from services.store.client import SyncClient
from services.store.health import memory_of
from services.store.heartbeat import beats
from services.store.snapshot_record import decode_record

logger = logging.getLogger("asb")

POLL_S = 5.0  # a scrape shows what heartbeats said up to so long ago
ANSWER_S = 10.0  # a request that waits longer for the loop is given up
_FAMILIES: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


class Server(Protocol):
    """What prometheus-client serves with."""

    server_port: int

    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class Exporter(Reader):
    """A projector whose view is a page over HTTP."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._url, self._keys, self._settings = setup.client.url, setup.keys, setup.settings
        self._clock = ServerClock()
        self._pairs = figures.Pairs()
        self._places, self._counted, self._polled = Places(), Counted(), Polled()
        self.port = 0

    def restored(self, state: State) -> None:
        super().restored(state)
        self._places.reached(state.meta.events, elapsed())

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: where the metrics are served."""
        return {"listens": f"{self._settings.metrics.host}:{self.port}"} if self.port else {}

    async def run(self) -> None:
        """Serve until cancelled. Raises AsbError where the port that was asked for is taken."""
        async with self._served():
            while True:
                await self._poll()
                await anyio.sleep(POLL_S)

    # -- what others know ------------------------------------------------------------------------

    async def _poll(self) -> None:
        client = SyncClient(self._url, self._keys.log)
        try:
            sent = elapsed()
            polled, server_us = await anyio.to_thread.run_sync(poll, client, self._keys)
            self._clock.set(server_us, sent)
            self._counted.saw(polled.beats)
            self._polled = polled
        except (RedisUnavailable, CommandRefused):
            self._polled = Polled(elapsed())
        finally:
            client.close()

    # -- pages -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _served(self) -> AsyncGenerator[None]:
        registry = CollectorRegistry()
        registry.register(_Page(self, asyncio.get_running_loop()))
        server = self._listen(registry)
        self.port = server.server_port
        host = self._settings.metrics.host
        logger.info("metrics at http://%s:%d/metrics", host, self.port)
        try:
            yield
        finally:
            self.port = 0
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(server.shutdown)
            server.server_close()

    def _listen(self, registry: CollectorRegistry) -> Server:
        chosen = self._settings.metrics
        wanted = "metrics.port" in self._settings.origins
        for port in (chosen.port, 0):
            try:
                server, _ = prometheus_client.start_http_server(port, chosen.host, registry)
                return cast("Server", server)
            except OSError as error:
                if wanted or not port:
                    raise AsbError(
                        f"no metrics can be served on {chosen.host}:{port}: {error.strerror}",
                        hint="[metrics] port = 0 takes any free port; `asb doctor` then names it",
                    ) from error
        raise AssertionError("unreachable")

    async def families(self) -> list[Metric]:
        """All figures of this moment, as prometheus-client takes them."""
        state = await self.settled()
        now = self._clock.now() if self._polled.up else state.meta.at
        every = self._settings.snapshots.every_events
        rows: list[Iterable[Sample | Durations]] = [
            figures.samples(state, now, self._pairs),
            processes.samples(self._polled, state, now, self._places, self._counted, every),
            [Sample("asb_build", (VERSION,), 1)],
        ]
        return list(exposed(sample for group in rows for sample in group))


class _Page(Collector):
    """Called by threads that serve: has the loop make the page."""

    def __init__(self, exporter: Exporter, loop: asyncio.AbstractEventLoop) -> None:
        self._exporter, self._loop = exporter, loop

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        made = asyncio.run_coroutine_threadsafe(self._exporter.families(), self._loop)
        yield from made.result(ANSWER_S)


def exposed(samples: Iterable[Sample | Durations]) -> Iterator[Metric]:
    """Samples as families, in the catalogue's order; one the catalogue lacks raises KeyError."""
    by_name: dict[str, list[Sample | Durations]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    for name in by_name:
        _ = ROWS[name]
    for name, row in ROWS.items():
        labels = () if row.kind == "info" else row.labels
        family = _FAMILIES[row.kind](name, row.help, labels=labels)
        for sample in by_name.get(name, ()):
            if isinstance(sample, Durations):
                family.add_metric(sample.labels, sample.buckets, sum_value=sample.total_s)
            elif row.kind == "info":
                family.add_metric((), dict(zip(row.labels, sample.labels, strict=True)))
            else:
                family.add_metric(sample.labels, sample.value)
        yield family


def poll(client: SyncClient, keys: Keys) -> tuple[Polled, int]:
    """What Redis and the heartbeats say, and the server's time (µs). Raises as SyncClient."""
    asked = elapsed()
    running = tuple(beats(client, keys))
    replies = client.pipeline(
        [
            ("TIME",),
            ("XLEN", keys.log),
            ("XLEN", keys.deadletter),
            ("GET", keys.deadletter_dropped),
            ("GET", keys.snapshot_record),
        ]
    )
    (seconds, micros), *others = replies
    entries, letters, dropped, record = (
        None if isinstance(reply, CommandRefused) else reply for reply in others
    )
    memory, limit = _memory(client)
    polled = Polled(
        elapsed=asked,
        up=True,
        beats=running,
        log_entries=entries or 0,
        dead_letters=letters or 0,
        dead_letters_dropped=int(dropped) if dropped is not None and dropped.isdigit() else 0,
        snapshot=decode_record(record),
        memory=memory,
        memory_limit=limit,
    )
    return polled, int(seconds) * 1_000_000 + int(micros)


def _memory(client: SyncClient) -> tuple[int, int]:
    """As ``memory_of``, of all servers that hold a part of the bus together."""
    try:
        sizes = [memory_of(info) for info in client.everywhere("INFO", "memory")]
    except (CommandRefused, RedisUnsuitable):
        return 0, 0
    used, limits = zip(*sizes, strict=True)
    return sum(used), sum(limits) if all(limits) else 0


def projectors(setup: Setup) -> list[Projector]:
    """What `asb service exporter` runs."""
    return [Exporter(setup)]
