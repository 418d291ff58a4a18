"""Several engines at once, restarts under load, snapshots, and what a host keeps in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

import anyio
import pytest

from events.envelope import Event
from events.task import TaskSubmitted
from services.engine.host import Host
from services.store.client import SyncClient
from services.store.log import Log
from services.store.rebuild import rebuild, write_snapshot
from tests.given import wire
from tests.integration.test_engine_ground import (
    Bus,
    Hands,
    caught_up,
    limit,
    proven,
    running,
    working,
)
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

WAVE = 400
LIMITS = (limit("global", "tokens", "hour", 40_000), limit("worker", "tokens", "hour", 30_000))


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    made = Bus(redis_url, namespace, limits=LIMITS)
    yield made
    await made.close()


async def test_two_engines_on_one_log_decide_everything_once(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.engine.standby.STANDBY_S", 0)  # neither lets the other go first
    one, two = bus.host(), bus.host()
    async with running(one, two), working(bus, "w1", "w2"):
        tasks = await bus.submit_many(300)
        await bus.ended(*tasks, within=30)
        await caught_up(bus, one, two)
        a = proven(bus, one, two, tasks=tasks)
    conflicts = one.stats.conflicts + two.stats.conflicts
    print(f"\ntwo engines: {one.stats.turns} and {two.stats.turns} turns, {conflicts} conflicts")  # noqa: T201
    assert conflicts > 0
    assert min(one.stats.turns, two.stats.turns) > 0
    assert len(a.dispatched) == 300
    assert await bus.dead() == []


async def test_restarts_under_load_lose_nothing_and_do_nothing_twice(bus: Bus) -> None:
    async with working(bus, "w1", "w2"):
        tasks: list[str] = []
        for _ in range(5):
            host = bus.host()
            async with running(host):
                tasks += await bus.submit_many(60)
                before = host.state.meta.completed
                await wait_until(lambda host=host, n=before: host.state.meta.completed > n)
        host = bus.host()
        async with running(host):
            await bus.ended(*tasks, within=30)
            await caught_up(bus, host)
            a = proven(bus, host, tasks=tasks)
    assert len(a.dispatched) == len(tasks)
    assert await bus.dead() == []


async def test_a_snapshot_and_its_tail_are_the_whole_fold(bus: Bus) -> None:
    async with running(bus.host()), working(bus, "w1"):
        first = await bus.submit_many(80)
        await wait_until(lambda: len(bus.events("task.completed")) > 20)
        client = SyncClient(bus.url)
        kept, size = write_snapshot(client, bus.keys)
        place = kept.meta.log_id
        assert size > 0
        more = await bus.submit_many(80)
        await bus.ended(*first, *more, within=20)
    assert place != bus.events()[-1].log_id
    whole = bus.folded()
    assert bus.folded(snapshot=True).digest() == whole.digest()
    for event in bus.events()[::40]:
        there = rebuild(client, bus.keys, until=event.log_id)
        plain = rebuild(client, bus.keys, until=event.log_id, snapshot=False)
        assert there.digest() == plain.digest()
    host = bus.host()
    async with running(host):
        await caught_up(bus, host)
        proven(bus, host)
    client.close()


def kept(host: Host) -> dict[str, int]:
    """Sizes of everything that must not grow with the tasks done."""
    state = host.state
    return {
        "waiting": sum(len(heap) for heap in state.indexes.queues.waiting.values()),
        "timers": len(state.indexes.queues.timers),
        "undelegated": len(list(state.indexes.undelegated)),
        "orphans": len(list(state.indexes.orphans)),
        "dependents": len(state.dependents),
        "tasks": len(state.tasks),
        "ahead": len(host.intakes),
    }


async def test_indexes_do_not_grow_with_the_tasks_done(redis_url: str, namespace: str) -> None:
    bus = Bus(redis_url, namespace)
    engine, follower = bus.host(), bus.host("inbox", "usage")
    sizes: list[dict[str, int]] = []
    async with running(engine, follower), working(bus, "w1", capacity=200):
        for done in range(WAVE, 16 * WAVE + 1, WAVE):
            half = await bus.submit_many(WAVE // 2)
            await bus.submit_many(WAVE // 2, after=half[-1:])
            await wait_until(lambda n=done: engine.state.meta.ended == n, within=20)
            await caught_up(bus, engine, follower)
            beside = {f"{k} of the follower": n for k, n in kept(follower).items()}
            sizes += [{**kept(engine), **beside}]
    print(f"\nafter {16 * WAVE} tasks: {sizes[-1]}")  # noqa: T201
    most = 1_000 + 4 * WAVE  # less than half of what was done
    assert [k for k, n in sizes[-1].items() if n > most] == []
    assert sizes[-1]["dependents"] == sizes[-1]["tasks"] == 0
    await bus.close()


async def test_cancelled_tasks_leave_the_queues(bus: Bus) -> None:
    host = bus.host()
    async with running(host):
        for n in range(3):
            tasks = await bus.submit_many(800)
            for task in tasks:
                await bus.tell("task.cancel_requested", task=task)
            await wait_until(lambda n=n: host.state.meta.cancelled == 800 * (n + 1), within=20)
        assert max(kept(host).values()) <= 1_000 + 4 * 800
        worker = await Hands(bus).join()
        await bus.submit()
        await worker.takes()
        assert kept(host)["waiting"] <= 1


async def test_what_a_turn_decided_is_forgotten_when_it_did_not_reach_the_log(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two engines that lose every other append to each other stay at the fold of the log."""
    hosts = [bus.host() for _ in range(3)]
    monkeypatch.setattr("services.engine.standby.STANDBY_S", 0)
    async with running(*hosts):
        hands = [await Hands(bus, f"w{n}").join(capacity=3) for n in range(3)]
        tasks = await bus.submit_many(75)
        async with anyio.create_task_group() as group:
            for worker in hands:
                group.start_soon(_work, worker)
            await bus.ended(*tasks, within=20)
            group.cancel_scope.cancel()
        await caught_up(bus, *hosts)
        proven(bus, *hosts, tasks=tasks)


async def _work(worker: Hands) -> None:
    """Every fifth task fails."""
    for n in itertools.count():
        entry = await worker.takes(within=60)
        if n % 5:
            await worker.does(entry)
        else:
            await worker.says("failed", entry, retryable=False)


async def test_a_word_about_what_another_engine_just_decided_is_not_buried(bus: Bus) -> None:
    host = bus.host()
    async with running(host):
        await wait_until(bus.events)
        await another_engine_takes_in(bus, "theirs")  # this one has not seen it when the word comes
        await bus.tell("task.cancel_requested", task="theirs")
        await bus.ended("theirs")
        assert host.stats.conflicts == 1
    assert await bus.dead() == []


async def another_engine_takes_in(bus: Bus, task: str) -> None:
    seconds, micros = await bus.client.call("TIME")
    now = int(seconds) * 1_000_000 + int(micros)
    data = TaskSubmitted(task, "x")
    place = f"{now // 1000 + 1}-0"
    event = Event(data, 0, place, bus.keys.main_intake, "", task, wire(data))
    done = await Log(bus.client, bus.keys).append(bus.events()[-1].log_id, now, [event])
    assert done.outcome == "ok"
