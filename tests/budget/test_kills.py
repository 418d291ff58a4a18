"""T10: the engine is killed at every named point of its turn; holds are in order afterwards.

``tests/crash/test_bus_storm.py`` kills every process at random for as long as one likes; here each
named point of the engine is reached, the engine is started anew, and the audit walks the log.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budget.ground import PROVING, audit_of, often, raw_log, say
from tests.crash.processes import Fleet
from tests.integration.test_engine_ground import Bus
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3_600 if PROVING else 60)]
POINTS = ("append.before", "append.after", "inbox.before", "inbox.after", "deadletter.after")
TIMES = often(2, 200)


@pytest.mark.parametrize("point", POINTS)
def test_an_engine_killed_at_a_point_leaves_no_hold_behind(
    point: str, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    fleet = Fleet(redis_url, namespace, tmp_path)
    bus = Bus(redis_url, namespace)
    kills = 0
    try:
        fleet.worker("w1")
        fleet.submitter("s1")
        host = fleet.host(die_at=f"{point}:1")
        for number in range(TIMES):
            fleet.allow(10)
            wait_blocking(
                lambda host=host: host.code is not None, within=30, what=f"end at {point}"
            )
            assert host.died_at_its_point, host.said()
            kills += 1
            # One entry in ten is poison, so an engine comes by that point once a round.
            times = 1 if point.startswith("deadletter") else 1 + number % 3
            host = fleet.again(host, die_at=f"{point}:{times}")
        last = fleet.host()
        wanted = 10 * TIMES

        def all_ended() -> bool:
            reported = fleet.acknowledged()
            state = bus.folded()
            done = len(reported["task"]) + len(reported["poison"]) == wanted
            return done and len(state.outcomes) == len(reported["task"]) and not state.tasks

        wait_blocking(all_ended, within=40 + TIMES, what=f"every task ends: {last.said()}")
    finally:
        fleet.end()
    audit = audit_of(raw_log(redis_url, bus.keys.log))
    checked = audit.checked
    say(
        f"{point}: {kills} kills, {checked['dispatches']} dispatches, {audit.open_holds} holds open"
    )
    assert audit.findings == []
    assert audit.open_holds == 0
    assert checked["holds settled"] + checked["holds released"] == checked["dispatches"]
    assert kills == TIMES
