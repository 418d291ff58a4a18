"""Each service alone: slower, and just as exact."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from services.store.client import SyncClient
from tests.crash.processes import LIMITS, Fleet
from tests.integration.test_engine_ground import (
    Bus,
    audit,
    caught_up,
    held,
    proven,
    running,
    working,
)
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

APART = ("intake", "delegator", "dispatcher", "throttle", "inbox")


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    made = Bus(redis_url, namespace, limits=LIMITS)
    yield made
    await made.close()


@pytest.fixture
def fleet(redis_url: str, namespace: str, tmp_path: Path) -> Generator[Fleet]:
    made = Fleet(redis_url, namespace, tmp_path)
    yield made
    made.end()


async def test_services_apart_decide_as_the_engine_does(bus: Bus) -> None:
    hosts = [bus.host(name) for name in APART]
    async with running(*hosts), working(bus, "w1", "w2"):
        tasks = await bus.submit_many(300)
        await bus.ended(*tasks, within=40)
        await caught_up(bus, *hosts)
        a = proven(bus, *hosts, tasks=tasks)
    conflicts = [host.stats.conflicts for host in hosts]
    print(f"\nservices apart: conflicts {conflicts}")  # noqa: T201
    assert sum(conflicts) > 0
    assert len(a.dispatched) == 300
    assert await bus.dead() == []
    sources = {event.source for event in bus.events()}
    assert {"delegator", "dispatcher"} <= sources


async def test_two_of_each_service_decide_once(bus: Bus) -> None:
    hosts = [bus.host(name) for name in (*APART, *APART)]
    async with running(*hosts), working(bus, "w1"):
        tasks = await bus.submit_many(100)
        await bus.ended(*tasks, within=40)
        await caught_up(bus, *hosts)
        a = proven(bus, *hosts, tasks=tasks)
    assert len(a.dispatched) == 100


async def test_a_service_that_was_away_resumes_where_it_was(bus: Bus) -> None:
    """Each in turn is missing while tasks come in; nothing is lost by it."""
    tasks: list[str] = []
    async with working(bus, "w1"):
        for missing in APART:
            hosts = [bus.host(name) for name in APART if name != missing]
            async with running(*hosts):
                tasks += await bus.submit_many(30)
                count = 0 if missing == "intake" else len(tasks)
                await wait_until(lambda n=count: len(bus.events("task.submitted")) >= n)
        hosts = [bus.host(name) for name in APART]
        async with running(*hosts):
            await bus.ended(*tasks, within=30)
            await caught_up(bus, *hosts)
            a = proven(bus, *hosts, tasks=tasks)
    assert len(a.dispatched) == len(tasks)


async def test_services_in_their_own_processes_serve_real_workers(fleet: Fleet, bus: Bus) -> None:
    hosts = [fleet.host(name) for name in APART]
    fleet.worker("w1")
    fleet.worker("w2")
    fleet.submitter("s1")
    fleet.allow(300)

    def all_over() -> bool:
        state = bus.folded()
        return state.meta.submitted == state.meta.ended == 270  # every tenth is poison

    await wait_until(all_over, within=50, what="270 tasks are over")
    a = audit(bus.events())
    assert a.wrong == []
    assert held(a.state) == {}
    for host in hosts:
        await wait_until(
            lambda host=host: fleet.told_by(host)["log_id"] == a.state.meta.log_id,
            within=10,
            what=f"{host.arguments} at the end of the log",
        )
        assert fleet.told_by(host)["digest"] == a.state.digest()
    client = SyncClient(bus.url)
    assert client.call("XLEN", bus.keys.deadletter) == 30
    client.close()
