"""A torn log: Redis comes back with less than it had, and every service goes back with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from events.keys import Keys
from services.store import rebuild
from services.store.client import SyncClient
from tests.crash.processes import Fleet
from tests.crash.test_bus_storm import NAMESPACE, PROVE, TASKS, Storm
from tests.integration.test_engine_ground import held
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

TEARS = 15 if PROVE else 2
TORN_BYTES = 40_000
KEYS = Keys(NAMESPACE)
WITHOUT_SNAPSHOTS = "intake,delegator,dispatcher,throttle,inbox"
APART = ("intake", "delegator", "dispatcher", "throttle", "inbox", "views,alerts,usage")


@pytest.fixture
def storm(tmp_path: Path) -> Generator[Storm]:
    made = Storm(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("services", [("", ""), APART], ids=["two-engines", "services-apart"])
def test_after_a_torn_tail_every_service_stands_where_the_log_does(
    storm: Storm, services: tuple[str, ...]
) -> None:
    storm.start(services)
    torn: list[int] = []
    for _ in range(TEARS):
        storm.fleet.allow(TASKS)
        storm.grown(200)
        storm.count("redis, its tail torn")
        torn.append(tear(storm))
        storm.fleet.allow(TASKS // 3)
        storm.grown(100)
        wait_blocking(lambda: rewritten(storm), within=20, what="the file is written anew")
    a = storm.finish()
    assert a.wrong == []
    assert a.state.tasks == {}
    assert held(a.state) == {}
    rebuilds = [word["stats"]["rebuilds"] for word in storm.hosts_agree(a)]
    storm.report("torn", f"events torn off the log: {torn}, rebuilds of the hosts: {rebuilds}")
    assert max(torn) > 0  # what is torn off may be of a heartbeat alone
    # Whoever had folded what was torn off saw its past go. One that was behind had nothing to
    # forget: that all of them stand where the log does was shown above, by their digests.
    assert max(rebuilds) > 1
    everything_at_the_intake_was_taken_once(storm)


def tear(storm: Storm) -> int:
    """Kill Redis, cut the end off its log, start it; how many events were cut off."""
    before = storm.log_length()
    server = storm.server
    assert isinstance(server, RedisServer)
    # Where the disk is busy a server writes its log up to two seconds later.
    wait_blocking(lambda: server.aof_file().stat().st_size > TORN_BYTES, what="enough to tear")
    server.kill9()
    server.tear_aof(TORN_BYTES)
    server.start()
    with storm.client() as client:
        state = rebuild.rebuild(client, KEYS, snapshot=False)
    return before - state.meta.events


def rewritten(storm: Storm) -> bool:
    """A tail torn within a transaction stays in the file until it is written anew: torn once more,
    it would come to life (seen with 7.0). The hosts have that done when the log went back."""
    return b"aof_rewrite_in_progress:0" in storm.server.call("INFO", "persistence")


def everything_at_the_intake_was_taken_once(storm: Storm, *, alone: bool = False) -> None:
    """``alone``: the intake is on a server of its own, and may have lost what the log kept."""
    with storm.client() as client:
        events = [e for batch in rebuild.read_log(client, KEYS) for e in batch]
        intake = client.call("XRANGE", KEYS.main_intake, "-", "+")
    submitted = Counter(e.id for e in events if e.type == "task.submitted")
    wanted = {
        fields[3].decode()
        for _, fields in intake
        if fields[1] == b"task.submitted" and b'"text":""' not in fields[5]
    }
    assert wanted <= set(submitted) if alone else wanted == set(submitted)
    assert max(submitted.values()) == 1


def test_a_snapshot_that_dies_before_it_is_kept_leaves_the_old_one(storm: Storm) -> None:
    storm.start((WITHOUT_SNAPSHOTS,))
    storm.fleet.allow(TASKS)
    storm.grown(300)
    for _ in range(2):
        with storm.client() as client:
            before = client.call("GET", KEYS.snapshot)
        storm.count("snapshot.before_set")
        storm.snapshot(dies=True)
        with storm.client() as client:
            assert client.call("GET", KEYS.snapshot) == before
        storm.snapshot(dies=False)
        storm.fleet.allow(20)
        storm.grown(20)
    storm.kill_host(0)
    storm.hosts = [storm.fleet.again(storm.hosts[0])]
    a = storm.finish()
    storm.hosts_agree(a)
    with storm.client() as client:
        state = rebuild.load_snapshot(client, KEYS)
        assert state is not None
        assert state.meta.events > 0
        assert rebuild.rebuild(client, KEYS).digest() == a.state.digest()
    storm.report("snapshots")
    assert min(storm.in_flight.values()) > 0


def test_a_snapshot_of_a_place_that_was_torn_off_is_not_used(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis").start()
    fleet = Fleet(server.url, NAMESPACE, tmp_path)
    try:
        host, _submitter = fleet.host("intake,delegator"), fleet.submitter("s1")
        fleet.allow(100)
        wait_blocking(lambda: server.call("XLEN", KEYS.log) == 181, within=20, what=host.said())
        fleet.end()
        client = SyncClient(server.url)
        rebuild.write_snapshot(client, KEYS)
        [(last, fields)] = client.call("XREVRANGE", KEYS.log, "+", "-", "COUNT", 1)
        client.call("XDEL", KEYS.log, last)
        assert rebuild.load_snapshot(client, KEYS) is None
        assert rebuild.rebuild(client, KEYS).meta.events == 180
        assert fields
        client.close()
    finally:
        fleet.end()
        server.stop()
