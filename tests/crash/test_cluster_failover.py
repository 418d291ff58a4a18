"""Cluster: primaries die or freeze under load, slots move, and the bus goes on.

The log and the shared intake lie on nodes of their own, and each is lost without the other.
Replication does not wait, so a failover may lose what was acknowledged last, on that node alone:
what still stands at the intake afterwards was taken once, and no promise is broken.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.crash.test_bus_storm import KEYS, Storm, nothing_lost_nothing_twice
from tests.crash.test_bus_torn import everything_at_the_intake_was_taken_once
from tests.integration.test_engine_ground import held

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

PROVE = os.environ.get("ASB_TEST_PROVE") == "1"
LOSSES = 5 if PROVE else 1  # of each kind, of each key: four times as many in all
MOVES = 5 if PROVE else 1
TASKS = 60  # by each submitter, for each step: all losses together stay within the storm's budget


@pytest.fixture
def storm(tmp_path: Path, cluster: Cluster) -> Generator[Storm]:
    made = Storm(tmp_path, cluster)
    yield made
    made.fleet.end()


def goes_on(storm: Storm, tasks: int = TASKS // 2, events: int = 50) -> None:
    """More is submitted, and gets to the log."""
    length = storm.log_length()
    storm.fleet.allow(tasks)
    storm.grown(events, since=length)


def test_primaries_lost_under_load_break_no_promise(storm: Storm, cluster: Cluster) -> None:
    assert cluster.primary_of(KEYS.log) is not cluster.primary_of(KEYS.main_intake)
    storm.start()
    for _ in range(LOSSES):
        for key in (KEYS.log, KEYS.main_intake):
            for how in (cluster.restart, cluster.freeze):
                goes_on(storm, TASKS, 100)
                storm.count(f"primary of {key}: {how.__name__}")
                how(key)
                goes_on(storm)
    a = storm.finish(within=240)
    assert a.wrong == []
    assert a.state.tasks == {}
    assert held(a.state) == {}
    everything_at_the_intake_was_taken_once(storm, alone=True)
    words = storm.hosts_agree(a)
    storm.report("cluster", f"rebuilds of the hosts: {[w['stats']['rebuilds'] for w in words]}")


def test_the_slot_of_the_log_moves_under_load(storm: Storm, cluster: Cluster) -> None:
    storm.start()
    for n in range(MOVES):
        goes_on(storm, TASKS, 100)
        storm.count("slot of the log moved")
        cluster.reshard(KEYS.log, 100)
        goes_on(storm)
        if n == 0:
            cluster.reshard(KEYS.main_intake)
            goes_on(storm)
    a = storm.finish(within=240)
    nothing_lost_nothing_twice(storm, a)  # for nobody dies
    words = storm.hosts_agree(a)
    storm.report("slots moved", f"rebuilds of the hosts: {[w['stats']['rebuilds'] for w in words]}")
