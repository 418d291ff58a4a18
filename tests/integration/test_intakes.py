"""The intake streams: read ahead, taken in once, trimmed."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from services.store.client import SyncClient
from services.store.intakes import AHEAD_MAX, Intakes
from tests.integration.test_engine_ground import Bus, Hands, blocked, proven, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def intakes(bus: Bus) -> Intakes:
    return Intakes(bus.client, bus.keys, lambda: None)


async def entries(bus: Bus, count: int, intake: str | None = None) -> list[str]:
    return [await bus.put("type", "x", "n", str(n), intake=intake) for n in range(count)]


def ahead(intakes: Intakes) -> list[str]:
    return [entry.id for entry in intakes.peek(10_000)]


async def test_entries_come_in_order_and_stay_until_they_are_dropped(
    bus: Bus, intakes: Intakes
) -> None:
    ids = await entries(bus, 5)
    await intakes.read_once()
    assert ahead(intakes) == ids
    assert [e.id for e in intakes.peek(2)] == ids[:2]
    intakes.drop(2)
    assert ahead(intakes) == ids[2:]
    assert intakes.waited_s() is not None
    assert intakes.peek(1)[0].fields == [b"type", b"x", b"n", b"2"]


async def test_what_comes_is_passed_on_within_the_reply_that_brought_it(bus: Bus) -> None:
    passed_on: list[list[str]] = []
    intakes = Intakes(bus.client, bus.keys, lambda: passed_on.append(ahead(intakes)))
    ids: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(intakes.read_once)
        ids += await entries(bus, 1)
    assert passed_on == [ids]
    assert len(ids) == 1


async def test_after_a_reset_reading_begins_behind_what_the_log_has_taken(
    bus: Bus, intakes: Intakes
) -> None:
    ids = await entries(bus, 5)
    await intakes.read_once()
    intakes.reset({bus.keys.main_intake: ids[1]})
    assert ahead(intakes) == []
    await intakes.read_once()
    assert ahead(intakes) == ids[2:]


async def test_what_another_engine_took_is_dropped(bus: Bus, intakes: Intakes) -> None:
    ids = await entries(bus, 5)
    await intakes.read_once()
    intakes.drop_taken({bus.keys.main_intake: ids[2]})
    assert ahead(intakes) == ids[3:]


async def test_what_another_engine_took_while_we_were_reading_is_not_taken_again(
    bus: Bus, intakes: Intakes, redis_url: str
) -> None:
    ids: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(intakes.read_once)
        await wait_until(lambda: blocked(bus.client))
        # In one step of this loop: two entries come, the other engine takes the first, we hear of
        # it.
        with contextlib.closing(SyncClient(redis_url)) as other:
            command = ("XADD", bus.keys.main_intake, "*", "type", "x")
            ids = [reply.decode() for reply in other.pipeline([command, command])]
        intakes.drop_taken({bus.keys.main_intake: ids[0]})
    await intakes.read_once()
    assert ahead(intakes)[-1] == ids[1]
    assert ids[0] not in ahead(intakes)


async def test_a_reader_that_is_far_ahead_waits_for_room(bus: Bus, intakes: Intakes) -> None:
    await bus.submit_many(AHEAD_MAX + 700)
    while len(intakes) < AHEAD_MAX:
        await intakes.read_once()
    assert len(intakes) < AHEAD_MAX + 500
    async with anyio.create_task_group() as group:
        group.start_soon(intakes.read_once)
        await anyio.wait_all_tasks_blocked()
        assert len(intakes) < AHEAD_MAX + 500
        intakes.drop(1_000)
    await intakes.read_once()
    assert len(intakes) > AHEAD_MAX - 1_000


async def test_an_agent_s_own_intake_is_read_from_its_start(bus: Bus, intakes: Intakes) -> None:
    mine = await entries(bus, 2, intake="codex")
    intakes.open(bus.keys.intake("codex"))
    both = mine + await entries(bus, 2)
    while len(intakes) < len(both):  # in a Cluster each has a server of its own
        await intakes.read_once()
    assert sorted(ahead(intakes)) == sorted(both)
    assert {e.intake for e in intakes.peek(4)} == {bus.keys.main_intake, bus.keys.intake("codex")}


async def test_trimming_forgets_what_was_taken_an_hour_ago_and_nothing_else(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = bus.host()
    async with running(host):
        await bus.submit_many(900)
        await wait_until(lambda: host.state.meta.submitted == 900)
        waiting = await _length(bus)
        await host.intakes.trim(host.state.intakes)
        assert await _length(bus) == waiting  # an hour is kept, by our own clock
    monkeypatch.setattr("services.store.intakes.KEPT_S", 0)
    host = bus.host()
    async with running(host):
        await host.intakes.trim(host.state.intakes)
        assert await _length(bus) < 200  # whole nodes only
        worker = await Hands(bus).join(capacity=10)
        await worker.takes()
    a = proven(bus)
    assert len(a.submitted) == 900


async def test_trimming_never_passes_what_waits(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.store.intakes.KEPT_S", 0)
    host = bus.host()
    ids = await bus.submit_many(900)
    await host.intakes.trim({bus.keys.main_intake: ids[450]})
    found = [e.decode() for e, _ in await bus.client.call("XRANGE", bus.keys.main_intake, "-", "+")]
    assert set(ids[450:]) <= set(found)
    assert len(found) < 900


async def _length(bus: Bus) -> int:
    return int(await bus.client.call("XLEN", bus.keys.main_intake))
