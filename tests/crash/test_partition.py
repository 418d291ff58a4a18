"""A primary is cut off, with a worker on its side that it goes on serving, while a replica takes
over on ours.

What the worker was told is acknowledged in those seconds is gone when the cable is back: the
server's word was good for nothing. It finds that out by itself, and nothing waits for its report.
Behind Sentinel that goes on until the cable is back; a Cluster's primary stops by itself once it
has been without the others for as long as it takes to replace it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from services.store import rebuild
from tests.clusters import Cluster, ClusterNode
from tests.crash.processes import ROOT
from tests.crash.test_bus_storm import KEYS, NAMESPACE, TASKS, Storm
from tests.crash.test_bus_torn import everything_at_the_intake_was_taken_once
from tests.hosts import ElsewhereHost
from tests.integration.test_engine_ground import held
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]


class Elsewhere(RedisServer):
    """A server on another machine."""

    elsewhere: ElsewhereHost

    def spawn(self, *options: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command, log = [*self._command, *options], self.folder / "redis.log"
        self.process = self.elsewhere.start(command, log, os.environ, shifted=False)


class ElsewhereNode(Elsewhere, ClusterNode):
    """A node on another machine."""


OPEN = ("--protected-mode", "no", "--bind", "0.0.0.0")


class SplitSentinels(Sentinels):
    """Its first server, the primary, is on another machine."""

    def __init__(self, folder: Path) -> None:
        self.elsewhere = ElsewhereHost("primary")
        self.address = self.elsewhere.address
        super().__init__(folder, *OPEN)

    def server(self, folder: Path, options: tuple[str, ...]) -> RedisServer:
        if folder.name == "redis-1":
            return RedisServer(folder, options=options, address=self.address)
        server = Elsewhere(folder, options=options, address=self.elsewhere.there)
        server.elsewhere = self.elsewhere
        return server

    def cut(self) -> None:
        """The primary is cut off, and another takes over."""
        before = self.primary
        assert before.address == self.elsewhere.there
        self.elsewhere.pull()
        self.failed_over(before)

    def stop(self) -> None:
        super().stop()
        self.elsewhere.end()


class SplitCluster(Cluster):
    """The primary of ``key`` is on another machine."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key, self.elsewhere = key, ElsewhereHost("primary")
        super().__init__(folder, *OPEN)

    def node(self, folder: Path, n: int, options: tuple[str, ...]) -> ClusterNode:
        if n != self.first_primary(self.key):
            return ClusterNode(folder, *options, address=self.elsewhere.address)
        node = ElsewhereNode(folder, *options, address=self.elsewhere.there)
        node.elsewhere = self.elsewhere
        return node

    def cut(self) -> None:
        """The primary is cut off, and another takes over."""
        before = self.primary_of(self.key)
        assert before.address == self.elsewhere.there
        self.elsewhere.pull()
        self.taken_over(self.key, before)

    def stop(self) -> None:
        super().stop()
        self.elsewhere.end()


Split = SplitSentinels | SplitCluster


@pytest.fixture(params=["sentinel", "cluster: log", "cluster: intake"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Split]:
    folder = tmp_path / "servers"
    made = {
        "sentinel": lambda: SplitSentinels(folder),
        "cluster: log": lambda: SplitCluster(folder, KEYS.log),
        "cluster: intake": lambda: SplitCluster(folder, KEYS.main_intake),
    }[request.param]()
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
    storm.count("primary: cut off")
    split.cut()
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
    everything_at_the_intake_was_taken_once(storm, alone=isinstance(split, SplitCluster))
    storm.hosts_agree(a)
    storm.report("partition")


def done_by(storm: Storm) -> Counter[str]:
    """How many tasks each worker completed, by the log."""
    with storm.client() as client:
        batches = rebuild.read_log(client, KEYS)
        ends = [e.data for batch in batches for e in batch if e.type == "task.completed"]
    return Counter(end.charged.worker for end in ends)
