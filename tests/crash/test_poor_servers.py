"""A bus under load on a server that is far away, slow, or behind a line that loses replies, while
hosts and workers are killed: nothing is lost, nothing is done twice, no promise is broken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.test_bus_storm import TASKS, Storm, nothing_lost_nothing_twice
from tests.poor_servers import FAR_S, LOST_EVERY, PoorServer, SlowServer
from tests.servers import Served

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

ROUNDS = 10 if os.environ.get("ASB_TEST_PROVE") == "1" else 1
SERVERS: dict[str, Callable[[Path], Served]] = {
    "far": lambda folder: PoorServer(folder, far_s=FAR_S),
    "lossy": lambda folder: PoorServer(folder, lost_every=LOST_EVERY),
    "slow": lambda folder: SlowServer(folder).start(),
}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=() if how == "lossy" else pytest.mark.prove) for how in SERVERS]
)
def test_kills_on_a_server_that_is_hard_to_reach_lose_nothing(tmp_path: Path, how: str) -> None:
    server = SERVERS[how](tmp_path / "redis")
    storm = Storm(tmp_path, server)
    if isinstance(server, PoorServer):
        storm.server = server.server  # who looks on is near
    try:
        storm.start()
        for n in range(ROUNDS):
            storm.fleet.allow(TASKS // 2)
            storm.grown(100)
            storm.kill_host(n % 2)
            storm.kill_worker("w1")
            storm.hosts[n % 2] = storm.fleet.again(storm.hosts[n % 2])
            storm.stands(n % 2)
        a = storm.finish(within=180)
        nothing_lost_nothing_twice(storm, a)
        storm.hosts_agree(a)
        lost = server.lost if isinstance(server, PoorServer) else 0
        assert how != "lossy" or lost > 0
        storm.report(f"a {how} server", f"replies lost with their connection: {lost}")
    finally:
        storm.fleet.end()
        server.stop()
