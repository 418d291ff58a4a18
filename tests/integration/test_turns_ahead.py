"""The next turn is decided while the last one is on its way; a turn's append writes its inboxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from projections.state import State
from services.decider import IntakeEntry
from services.engine.deciding import Decided, Deciding
from services.engine.turn import Turn, run_turn
from services.inbox.projector import Inboxes
from services.projector import Projector, Reader, Setup
from services.store.scripts import script
from tests.clusters import SLOTS, ClusterNode
from tests.integration.test_engine_ground import Bus, Hands, caught_up, proven, running, working
from tests.shifted import LossyProxy
from tests.wait import wait_blocking, wait_until

pytestmark = pytest.mark.anyio
TASKS = 300


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[Decided]:
    """The turns that are decided ahead."""
    decided: list[Decided] = []
    real = Deciding.ahead

    def noting(self: Deciding, state: State, entries: Sequence[IntakeEntry]) -> Decided | None:
        turn = real(self, state, entries)
        if turn is not None:
            decided.append(turn)
        return turn

    monkeypatch.setattr(Deciding, "ahead", noting)
    return decided


# -- the next turn ---------------------------------------------------------------------------------


async def test_a_backlog_is_decided_ahead_and_everything_is_done_once(
    bus: Bus, ahead: list[Decided]
) -> None:
    tasks = await bus.submit_many(TASKS)
    host = bus.host()
    async with running(host), working(bus, "w1", "w2", capacity=100):
        await bus.ended(*tasks, within=30)
        await caught_up(bus, host)
        proven(bus, host, tasks=tasks)
    assert [turn for turn in ahead if turn.turn.events] != []
    assert host.stats.conflicts == 0


async def test_what_was_decided_ahead_goes_with_the_turn_below_it(
    bus: Bus, ahead: list[Decided]
) -> None:
    """Foreign entries on the log make appends conflict while another turn is decided on theirs."""
    tasks = await bus.submit_many(TASKS)
    host = bus.host()
    undone = 0

    async def disturb() -> None:
        nonlocal undone
        await wait_until(lambda: host.stats.events > 0, within=10)
        while True:
            conflicts, turns = host.stats.conflicts, len(ahead)
            await bus.client.call("XADD", bus.keys.log, "*", "some", "body")
            await wait_until(lambda seen=conflicts: host.stats.conflicts > seen, within=10)
            undone += len(ahead) > turns

    async with running(host) as group, working(bus, "w1", "w2", capacity=100):
        group.start_soon(disturb)
        await bus.ended(*tasks, within=60)
        await wait_until(lambda: undone > 0, within=10)
        group.cancel_scope.cancel()
    found = proven(bus, tasks=tasks)
    assert found.state.digest() == bus.folded().digest()


async def test_what_came_during_a_turn_gets_one_turn_and_no_empty_one_follows(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[int, int]] = []
    rounds = 20

    def noting(*args: Any) -> Turn:
        turn = run_turn(*args)
        turns.append((turn.consumed, len(turn.events)))
        return turn

    monkeypatch.setattr("services.engine.deciding.run_turn", noting)
    monkeypatch.setattr("services.engine.host.IDLE_S", 3600.0)  # nobody looks because time passed
    host = bus.host()
    async with running(host):
        await bus.submit("the first")
        await wait_until(lambda: len(bus.events("task.delegated")) == 1, within=10)
        turns.clear()
        for number in range(1, rounds + 1):
            for _ in range(2):  # the second comes while the first is decided
                await bus.submit()
            await wait_until(
                lambda n=number: len(bus.events("task.delegated")) == 1 + 2 * n, within=10
            )
    assert sum(taken for taken, _ in turns) == 2 * rounds
    assert (0, 0) not in turns


async def test_two_engines_that_decide_ahead_do_everything_once(bus: Bus) -> None:
    tasks = await bus.submit_many(TASKS)
    hosts = [bus.host(), bus.host()]
    async with running(*hosts), working(bus, "w1", "w2", capacity=100):
        await bus.ended(*tasks, within=30)
        await caught_up(bus, *hosts)
        proven(bus, *hosts, tasks=tasks)


@pytest.mark.one_server
async def test_a_reply_that_is_lost_while_the_next_turn_is_decided_changes_nothing(
    redis_url: str, namespace: str, ahead: list[Decided]
) -> None:
    proxy = LossyProxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    bus, beyond = Bus(redis_url, namespace), Bus(proxy.url, namespace)
    try:
        tasks = await bus.submit_many(TASKS)
        host = beyond.host()
        async with running(host), working(bus, "w1", "w2", capacity=100):
            for _ in range(3):
                seen = len(ahead)
                tasks += await bus.submit_many(TASKS)
                await wait_until(lambda seen=seen: len(ahead) > seen, within=10)
                proxy.lose(script("append").sha.encode())
                await anyio.to_thread.run_sync(proxy.lost.wait, 10)
            await bus.ended(*tasks, within=60)
            await caught_up(bus, host)
            proven(bus, host, tasks=tasks)
        assert host.stats.outages >= 1
    finally:
        await bus.close()
        await beyond.close()
        proxy.close()


async def test_views_are_written_while_turns_follow_upon_each_other(bus: Bus) -> None:
    """A view shows only what stands: under load the state settles again and again."""
    tasks = await bus.submit_many(TASKS)
    async with running(bus.host()), working(bus, "w1", capacity=50):

        async def shown() -> bool:
            return await bus.client.call("EXISTS", bus.keys.throttle) == 1

        await wait_until(shown, within=10)
        await bus.ended(*tasks, within=30)


class Looker(Reader):
    """Looks at the state again and again, each time at one that stands."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus
        self.looks = self.waits = 0

    def restored(self, state: State) -> None:
        super().restored(state)
        self.wake()

    async def flush(self, woken: bool) -> None:
        await self._bus.client.call("PING")  # meanwhile the next turn is decided
        self.waits += self._state.ahead
        state = await self.settled()
        assert not state.ahead
        self.looks += 1


async def test_whoever_waits_for_a_state_that_stands_is_told(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = Looker(bus)

    def projectors(_setup: Setup) -> list[Projector]:
        return [looker]

    monkeypatch.setattr("services.usage.projector.projectors", projectors)
    host = bus.host()
    tasks = await bus.submit_many(TASKS)
    async with running(host), working(bus, "w1", capacity=50):
        await bus.ended(*tasks, within=30)
        waits, looks = looker.waits, looker.looks
        assert waits > 0
        await bus.submit("one more")
        await wait_until(lambda: looker.looks > looks, within=10)  # none waits for ever


# -- the inboxes -----------------------------------------------------------------------------------


@pytest.mark.one_server
async def test_the_append_of_a_dispatch_writes_the_inbox(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asleep(_self: Inboxes, _woken: bool) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(Inboxes, "flush", asleep)
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit("Fix the crash")
        entry = await worker.takes()
        assert (entry["task"], entry["text"]) == (task, "Fix the crash")
        await bus.tell("task.cancel_requested", task=task)
        assert (await worker.takes("task.cancel_requested"))["task"] == task
    [dispatched] = bus.events("task.dispatched")
    assert entry["log"] == dispatched.log_id


async def test_an_inbox_that_refuses_the_append_is_put_right(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join(capacity=2)
        await bus.client.call("SET", bus.keys.inbox("w1"), "no stream")
        tasks = [await bus.submit(f"task {n}") for n in range(2)]

        async def is_stream() -> bool:
            return await bus.client.call("TYPE", bus.keys.inbox("w1")) == b"stream"

        await wait_until(is_stream, within=10)
        entries = [await worker.takes(), await worker.takes()]
    assert sorted(entry["task"] for entry in entries) == sorted(tasks)


async def test_on_a_cluster_the_projector_writes_the_inboxes(
    namespace: str, tmp_path: Path
) -> None:
    server = ClusterNode(tmp_path / "redis")
    server.start()
    bus = Bus(server.url, namespace)
    try:
        server.ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_blocking(lambda: server.state["cluster_state"] == "ok", within=20)
        host = bus.host()
        async with running(host):
            worker = await Hands(bus).join(capacity=2)
            tasks = [await bus.submit(f"task {n}") for n in range(2)]
            entries = [await worker.takes(), await worker.takes()]
            assert [entry["task"] for entry in entries] == tasks
        assert host.stats.conflicts == 0
    finally:
        await bus.close()
        server.stop()
