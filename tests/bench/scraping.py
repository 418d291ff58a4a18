"""What a scrape costs when the log is long: the exporter that users start, and a page of it."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path

from services.queries.metrics import addresses
from services.runtime import initial_policy
from services.store.client import SyncClient
from services.store.heartbeat import beats
from tests.bench.children import settings
from tests.bench.ground import Ground, cpu_of, load_now, resident_of
from tests.bench.history import History
from tests.bench.measures import STARTUP_EVENTS, Figure, Plan, Spread
from tests.e2e.cli import ASB, environment
from tests.wait import wait_blocking

SCRAPES = 50
FOLD_S = 300.0


def scraping(ground: Ground, plan: Plan) -> list[Figure]:
    """A page of metrics with a million events folded: how long it takes, and the CPU of it."""
    keys = ground.keys()
    events = max(plan.events, STARTUP_EVENTS)
    with (
        contextlib.closing(SyncClient(ground.url)) as client,
        _exporter(ground, keys.namespace) as process,
    ):
        history = History(client, keys, events, initial_policy.policy(settings(keys.namespace)))
        history.grow(events)
        address = wait_blocking(lambda: addresses(beats(client, keys)), FOLD_S, "an exporter")[0]
        wait_blocking(lambda: _folded(address) >= history.events, FOLD_S, "all is folded")
        before, size, taken = cpu_of(process.pid), 0, list[float]()
        for _ in range(SCRAPES):
            began = time.monotonic()
            size = len(_page(address))
            taken.append((time.monotonic() - began) * 1000)
        cpu = (cpu_of(process.pid) - before) / SCRAPES * 1000
        memory = resident_of(process.pid) / 2**20
    notes = (
        f"{history.events:,} events, {size:,} bytes, {cpu:.1f} ms of CPU a scrape, "
        f"{memory:,.0f} MiB of the exporter"
    )
    spread = Spread(statistics.median(taken), min(taken), max(taken))
    return [Figure("scrape", "ms", spread, 20.0, "≤ 20 ms", False, notes=notes, load=load_now())]


@contextlib.contextmanager
def _exporter(ground: Ground, namespace: str) -> Generator[subprocess.Popen[bytes]]:
    variables = {"ASB_NAMESPACE": namespace, "ASB_METRICS_PORT": "0"}
    with tempfile.TemporaryDirectory(prefix="asb-bench-") as folder:
        process = subprocess.Popen(
            [*ASB, "service", "exporter", f"--redis={ground.url}"],
            env={**environment(), **variables}, cwd=Path(folder),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def _page(address: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as reply:
        return reply.read()


def _folded(address: str) -> float:
    """The events that the page stands for."""
    with contextlib.suppress(OSError):
        for line in _page(address).splitlines():
            if line.startswith(b"asb_log_events "):
                return float(line.split()[1])
    return 0.0
