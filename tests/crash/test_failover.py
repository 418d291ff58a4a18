"""Sentinel: a primary dies or freezes under load, a replica takes over, and the bus goes on.

Replication does not wait, so a failover may lose what was acknowledged last. What is lost is what
the server lost: all that stands at the intake afterwards was taken once, and no promise is broken.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.crash.test_bus_storm import TASKS, Storm
from tests.crash.test_bus_torn import everything_at_the_intake_was_taken_once
from tests.integration.test_engine_ground import held
from tests.sentinels import Sentinels

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

FAILOVERS = 10 if os.environ.get("ASB_TEST_PROVE") == "1" else 1


@pytest.fixture
def storm(tmp_path: Path, sentinels: Sentinels) -> Generator[Storm]:
    made = Storm(tmp_path, sentinels)
    yield made
    made.fleet.end()


def test_failovers_under_load_break_no_promise(storm: Storm, sentinels: Sentinels) -> None:
    storm.start()
    for _ in range(FAILOVERS):
        for how in (sentinels.restart, sentinels.freeze):
            storm.fleet.allow(TASKS)
            storm.grown(100)
            storm.count(f"primary: {how.__name__}")
            how()
            storm.fleet.allow(TASKS // 3)
            storm.grown(50)
    a = storm.finish(within=180)
    assert a.wrong == []
    assert a.state.tasks == {}
    assert held(a.state) == {}
    everything_at_the_intake_was_taken_once(storm)
    words = storm.hosts_agree(a)
    storm.report("failovers", f"rebuilds of the hosts: {[w['stats']['rebuilds'] for w in words]}")
