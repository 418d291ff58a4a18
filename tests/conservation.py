"""After a crash test: the log is what windows, totals, views and the metrics served say."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from events.keys import Keys
from services.client.bus import Bus
from services.queries.metrics import addresses
from services.queries.verify import conserved
from services.runtime.settings import Settings
from services.store.client import SyncClient
from services.store.heartbeat import beats
from tests.e2e.cli import ASB, environment
from tests.wait import wait_blocking


def conserved_over_http(url: str, settings: Settings) -> None:
    """Assert that every sum is conserved, those of the metrics among them: they are fetched from an
    exporter as users start it, which folds the log anew."""
    with _exporter(url, settings), contextlib.closing(SyncClient(url)) as client:
        bus = Bus(settings, client, Keys(settings.namespace))
        wait_blocking(lambda: addresses(beats(client, bus.keys)), within=60, what="an exporter")
        rows = conserved(bus)
    wrong = [row for row in rows if not row.good]
    assert not wrong, wrong
    assert "metrics" in {row.name for row in rows}


@contextlib.contextmanager
def _exporter(url: str, settings: Settings) -> Generator[None]:
    """`asb service exporter` on any free port."""
    variables = {"ASB_NAMESPACE": settings.namespace, "ASB_METRICS_PORT": "0"}
    if settings.archive.folder is not None:
        variables["ASB_ARCHIVE_FOLDER"] = str(settings.archive.folder)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*ASB, "service", "exporter", f"--redis={url}"],
            env={**environment(), **variables}, cwd=Path(folder),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)
