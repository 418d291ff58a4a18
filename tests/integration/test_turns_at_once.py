"""A lone entry's turn is decided and sent within the reply that brought it."""

from __future__ import annotations

import anyio
import pytest

from projections.state import State
from services.engine.appending import UnderWay
from services.engine.host import Host
from services.engine.next_turn import NextTurn
from services.store.scripts import script
from tests.integration.test_engine_ground import Bus, caught_up, proven, running, working
from tests.shifted import LossyProxy
from tests.wait import wait_until

pytestmark = pytest.mark.anyio
TASKS = 20


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[UnderWay]:
    """The turns that begin at once."""
    turns: list[UnderWay] = []
    real = NextTurn.begin

    def noting(self: NextTurn, state: State) -> None:
        assert self.begun is None, "one at a time"
        assert not state.ahead, "nothing may be under way"
        real(self, state)
        if self.begun is not None:
            turns.append(self.begun)

    monkeypatch.setattr(NextTurn, "begin", noting)
    return turns


async def one_by_one(bus: Bus, count: int = TASKS) -> list[str]:
    """Tasks, each submitted when the one before it is done."""
    tasks: list[str] = []
    for number in range(count):
        tasks.append(await bus.submit(f"fix bug number {number} in the parser"))
        await bus.ended(tasks[-1], within=30)
    return tasks


def decided(begun: list[UnderWay], kind: str) -> set[str]:
    """The tasks of events that were decided at once."""
    events = [event for turn in begun for event in turn.decided.turn.events]
    return {event.data.task for event in events if event.type == kind}


async def test_one_task_after_the_other_is_dispatched_within_the_reply_that_brought_it(
    bus: Bus, begun: list[UnderWay]
) -> None:
    host = bus.host()
    async with running(host), working(bus, "w1", capacity=2):
        tasks = await one_by_one(bus)
        await caught_up(bus, host)
        proven(bus, host, tasks=tasks)
    assert decided(begun, "task.dispatched") & set(tasks), "most of them, where nothing else is on"
    assert host.stats.conflicts == 0


async def test_a_turn_that_began_at_once_is_undone_by_a_conflict(
    bus: Bus, begun: list[UnderWay]
) -> None:
    """Something foreign stands on the log, of which the host learns by this very turn."""
    host, tasks = bus.host(), list[str]()
    async with running(host), working(bus, "w1", capacity=2):
        tasks += await one_by_one(bus, 1)

        async def conflicts() -> bool:
            turns, seen = len(begun), host.stats.conflicts
            await bus.client.call("XADD", bus.keys.log, "*", "some", "body")
            tasks.extend(await one_by_one(bus, 1))
            taken = decided(begun[turns:], "task.submitted")
            return tasks[-1] in taken and host.stats.conflicts > seen

        await wait_until(conflicts, within=60)
        await caught_up(bus, host)
    found = proven(bus, tasks=tasks)
    assert found.state.digest() == bus.folded().digest()


async def test_a_turn_that_began_at_once_and_whose_reply_is_lost_is_not_decided_twice(
    redis_url: str, namespace: str, begun: list[UnderWay]
) -> None:
    proxy = LossyProxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    bus, beyond = Bus(redis_url, namespace), Bus(proxy.url, namespace)
    try:
        host, tasks = beyond.host(), list[str]()
        async with running(host), working(bus, "w1", capacity=2):
            tasks += await one_by_one(bus, 1)

            async def lost_at_once() -> bool:
                turns, seen = len(begun), host.stats.outages
                proxy.lose(script("append").sha.encode())
                tasks.extend(await one_by_one(bus, 1))
                await anyio.to_thread.run_sync(proxy.lost.wait, 10)
                await wait_until(lambda: host.stats.outages > seen, within=10)
                return tasks[-1] in decided(begun[turns:], "task.submitted")

            await wait_until(lost_at_once, within=60)
            tasks += await one_by_one(bus, 2)
            await caught_up(bus, host)
            proven(bus, host, tasks=tasks)
    finally:
        await bus.close()
        await beyond.close()
        proxy.close()


async def test_two_engines_that_rest_take_each_entry_once(bus: Bus) -> None:
    hosts = [bus.host(), bus.host()]
    async with running(*hosts), working(bus, "w1", capacity=2):
        tasks = await one_by_one(bus)
        await caught_up(bus, *hosts)
        proven(bus, *hosts, tasks=tasks)


async def test_what_has_to_be_looked_up_is_decided_by_the_host(
    bus: Bus, begun: list[UnderWay]
) -> None:
    """An idempotency key: whether it is taken stands in Redis."""
    host = bus.host()
    async with running(host), working(bus, "w1", capacity=2):
        await one_by_one(bus, 1)
        for _ in range(2):
            await bus.put("type", "task.submitted", "id", "k1", "data", '{"text": "write a test"}')
        await wait_until(lambda: len(bus.events("task.completed")) == 2, within=20)
        await caught_up(bus, host)
    assert len(bus.events("task.submitted")) == 2
    assert not any(turn.decided.turn.taken for turn in begun)


async def test_a_host_that_ends_with_a_turn_under_way_leaves_it_to_the_log(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent, and nobody waits for its reply: the next host finds it."""

    async def never(_host: Host) -> bool:
        await anyio.sleep_forever()
        return False

    host = bus.host()
    async with running(host) as group:
        await bus.submit()
        await wait_until(lambda: bus.events("task.delegated"), within=20)
        await wait_until(lambda: not host.state.ahead, within=20)
        monkeypatch.setattr(Host, "_turn", never)
        last = await bus.submit()
        await wait_until(lambda: last in {e.data.task for e in bus.events("task.submitted")})
        group.cancel_scope.cancel()
    monkeypatch.undo()
    async with running(bus.host()), working(bus, "w1", capacity=2):
        await bus.ended(last, within=30)
    proven(bus, tasks=[e.data.task for e in bus.events("task.submitted")])
