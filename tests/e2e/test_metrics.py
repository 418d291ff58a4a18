"""Metrics as Prometheus gets them: by HTTP from a bus that people started, against its log."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from events.keys import Keys
from services.queries.metrics import Served, addresses, read
from services.runtime.errors import RedisUnavailable
from services.store.client import SyncClient
from services.store.heartbeat import beats
from tests.e2e.cli import AGENT, Up, asb
from tests.ports import free_port
from tests.wait import wait_blocking

pytestmark = [pytest.mark.timeout(600)]
TASKS = 6


@pytest.fixture
def up(tmp_path: Path) -> Generator[Up]:
    (tmp_path / "agent.py").write_text(AGENT)
    words = ("--workers=2", "--", sys.executable, str(tmp_path / "agent.py"))
    running = Up(tmp_path, *words).start()
    yield running
    running.end()


def page(up: Up) -> Served | None:
    """What the bus serves now; None while nobody does."""
    client = SyncClient(up.url)
    try:
        listening = addresses(beats(client, Keys()))
    finally:
        client.close()
    return read(listening[0]) if listening else None


def page_of(up: Up, events: int) -> Served:
    """The page that stands for so many events of the log."""

    def reached() -> Served | None:
        served = page(up)
        return served if served is not None and served.events == events else None

    served = wait_blocking(reached, within=60, what=f"a page of {events} events")
    assert served is not None
    return served


def exporter_pid(up: Up) -> int:
    client = SyncClient(up.url)
    try:
        return next(b.number("pid") for b in beats(client, Keys()) if b.service == "exporter")
    finally:
        client.close()


def log_length(up: Up) -> int:
    client = SyncClient(up.url)
    try:
        return int(client.call("XLEN", Keys().log))
    finally:
        client.close()


def lasting(served: Served) -> dict[str, float]:
    """What must be the same after a restart: whatever is a fold of the log."""
    names = (
        "asb_tasks_submitted_total",
        "asb_tasks_ended_total",
        "asb_task_start_seconds_sum",
        "asb_task_start_seconds_bucket",
        "asb_attempt_duration_seconds_sum",
        "asb_task_duration_seconds_count",
        "asb_tokens_total",
        "asb_cost_dollars_total",
        "asb_events_total",
        "asb_alerts_total",
    )
    rows = {f"{name} {sorted(g.items())}": v for name in names for g, v in served.rows(name)}
    assert rows
    return rows


def test_metrics_are_the_log_and_a_restart_gives_the_same(up: Up) -> None:
    """Given tasks that were done, then the page says so, doctor --deep holds it against the log,
    and after the exporter was killed its successor, started by `asb up`, serves the same."""
    texts = [f"Write page {n}" for n in range(TASKS)]
    assert up.run("submit", *texts, "--wait").returncode == 0
    served = page_of(up, log_length(up))
    assert served.sum("asb_tasks_ended_total", outcome="completed") == TASKS
    assert served.sum("asb_tokens_total", part="input") == 1000 * TASKS
    assert served.sum("asb_tokens_total", part="output") == 200 * TASKS
    assert served.sum("asb_task_start_seconds_count") == TASKS
    assert served.sum("asb_workers", status="idle") == 2
    assert served.sum("asb_service_processes", service="exporter") == 1

    checks = {row["name"]: row for row in up.ask("doctor", "--deep")["checks"]}
    assert checks["metrics"]["verdict"] == "ok", checks["metrics"]
    assert f"{1200 * TASKS:,} tokens" in checks["metrics"]["value"]

    before = exporter_pid(up)
    os.kill(before, signal.SIGKILL)
    wait_blocking(lambda: exporter_pid(up) != before, within=60, what="another exporter")
    assert lasting(page_of(up, log_length(up))) == lasting(served)


def test_the_exporter_goes_with_its_bus(up: Up) -> None:
    """Given `asb up` killed without a word, then its exporter ends, too."""
    wait_blocking(lambda: page(up) is not None, within=60, what="a page")
    pid = exporter_pid(up)
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    wait_blocking(lambda: not Path(f"/proc/{pid}").exists(), within=30, what="it ends")
    client = SyncClient(up.url)  # the Redis that was left behind
    with contextlib.suppress(RedisUnavailable):
        client.call("SHUTDOWN", "NOSAVE")
    client.close()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    up = Up(tmp_path).start()
    try:
        wait_blocking(lambda: page(up) is not None, within=60, what="a page")
        client = SyncClient(up.url)
        taken = addresses(beats(client, Keys()))[0].rpartition(":")[2]
        client.close()
        (tmp_path / "asb.toml").write_text(f"[metrics]\nport = {taken}\n")
        done = asb("service", f"--data-dir={up.data}", "exporter", cwd=tmp_path)
        assert done.returncode == 1
        assert f"no metrics can be served on 127.0.0.1:{taken}" in done.stderr
        assert "hint: " in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        up.end()


def test_nobody_serves_metrics_where_that_is_off(tmp_path: Path) -> None:
    (tmp_path / "asb.toml").write_text(f"[metrics]\nenabled = false\nport = {free_port()}\n")
    up = Up(tmp_path).start()
    try:
        checks = [row["name"] for row in up.ask("doctor")["checks"]]
        assert "metrics" not in checks
        assert not [words for words in up.processes() if "exporter" in words]
    finally:
        up.end()
