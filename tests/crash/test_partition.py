"""Sentinel: the primary is cut off, with a worker on its side that it goes on serving, while a
replica takes over on ours.

What the worker was told is acknowledged in those seconds is gone when the cable is back: the
server's word was good for nothing. It finds that out by itself, and nothing waits for its report.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from services.store import rebuild
from tests.crash.processes import ROOT
from tests.crash.test_bus_storm import KEYS, NAMESPACE, TASKS, Storm
from tests.crash.test_bus_torn import everything_at_the_intake_was_taken_once
from tests.hosts import ElsewhereHost
from tests.integration.test_engine_ground import held
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]


class FarServer(RedisServer):
    """A server on another machine."""

    elsewhere: ElsewhereHost

    def spawn(self, *options: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command, log = [*self._command, *options], self.folder / "redis.log"
        self.process = self.elsewhere.start(command, log, os.environ, shifted=False)


class Split(Sentinels):
    """Its first server, the primary, is on another machine."""

    def __init__(self, folder: Path) -> None:
        self.elsewhere = ElsewhereHost("primary")
        self.address = self.elsewhere.address
        super().__init__(folder, "--protected-mode", "no", "--bind", "0.0.0.0")

    def server(self, folder: Path, options: tuple[str, ...]) -> RedisServer:
        if folder.name == "redis-1":
            return RedisServer(folder, options=options, address=self.address)
        server = FarServer(folder, options=options, address=self.elsewhere.there)
        server.elsewhere = self.elsewhere
        return server

    def stop(self) -> None:
        super().stop()
        self.elsewhere.end()


@pytest.fixture
def split(tmp_path: Path) -> Generator[Split]:
    made = Split(tmp_path / "servers")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def storm(tmp_path: Path, split: Split) -> Generator[Storm]:
    made = Storm(tmp_path, split)
    yield made
    made.fleet.end()


def test_a_primary_that_is_cut_off_with_a_worker_breaks_no_promise(
    storm: Storm, split: Split
) -> None:
    storm.start()
    there = [sys.executable, "-m", "tests.crash.processes", "worker", split.url, NAMESPACE, "far"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    split.elsewhere.start(there, storm.fleet.folder / "far.log", environment, shifted=False)
    storm.fleet.allow(TASKS)
    wait_blocking(lambda: "far" in done_by(storm), within=60, what="the far worker is at work")
    before = split.primary
    assert before.address == split.elsewhere.there
    storm.count("primary: cut off")
    split.elsewhere.pull()
    split.failed_over(before)
    storm.fleet.allow(TASKS)
    storm.grown(100)
    split.elsewhere.plug()
    split.settled()
    after = done_by(storm)["far"]
    storm.fleet.allow(2 * TASKS)
    wait_blocking(lambda: done_by(storm)["far"] > after, within=60, what="it is back")
    a = storm.finish(within=180)
    assert a.wrong == []
    assert a.state.tasks == {}
    assert held(a.state) == {}
    everything_at_the_intake_was_taken_once(storm)
    storm.hosts_agree(a)
    storm.report("partition")


def done_by(storm: Storm) -> Counter[str]:
    """How many tasks each worker completed, by the log."""
    with storm.client() as client:
        batches = rebuild.read_log(client, KEYS)
        ends = [e.data for batch in batches for e in batch if e.type == "task.completed"]
    return Counter(end.charged.worker for end in ends)
