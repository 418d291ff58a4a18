"""Doors that somebody tries to close, empty or block: the desk reads on, and nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest

from events.keys import Keys
from services.intake.doors import AHEAD_MS
from services.runtime.client import Client, CommandRefused
from services.runtime.log import parse_id
from services.runtime.stray_doors import StrayDoors
from tests.integration.test_desk_ground import Bus, proven, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

HIGHEST = "18446744073709551615-18446744073709551615"


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    made = Bus(redis_url, namespace)
    yield made
    await made.close()


async def taken(bus: Bus, *tasks: str) -> None:
    """Wait until these submissions stand on the log."""

    def all_there() -> bool:
        found = {e.data.task for e in bus.events("task.submitted")}
        return found >= set(tasks)

    await wait_until(all_there, what=f"{len(tasks)} submissions on the log")


async def close(bus: Bus, entry_id: str, door: str | None = None) -> None:
    await bus.client.call("XADD", bus.keys.door(door), entry_id, "type", "x", "by", "eve")


async def last_id(bus: Bus, door: str | None = None) -> str:
    flat = await bus.client.call("XINFO", "STREAM", bus.keys.door(door))
    return dict(zip(flat[::2], flat[1::2], strict=True))[b"last-generated-id"].decode()


@pytest.mark.parametrize("entry_id", ["99999999999999-0", HIGHEST], ids=["future", "highest"])
async def test_an_id_of_the_far_future_does_not_close_a_door(bus: Bus, entry_id: str) -> None:
    async with running(bus.host()):
        before = await bus.submit(task="before")
        await close(bus, entry_id)

        async def set_back() -> bool:
            return parse_id(await last_id(bus)) < parse_id(entry_id)

        await wait_until(set_back, what="the door set back")
        after = await bus.submit(task="after")
        await taken(bus, before, after)
    [(entry, error)] = await bus.dead()
    assert entry == entry_id
    assert "more than a minute in the future" in error
    assert await bus.client.call("HLEN", bus.keys.deadletter_marks) == 0
    proven(bus)


async def test_what_stood_at_the_door_when_it_was_closed_is_taken(bus: Bus) -> None:
    """Nobody was there: entries before and behind the bad one, then a desk starts."""
    early = [await bus.submit(task=f"early-{n}") for n in range(3)]
    await close(bus, "99999999999999-0")
    late = [await bus.submit(task=f"late-{n}") for n in range(300)]  # Redis goes on from the bad id
    async with running(bus.host()):
        await taken(bus, *early, *late)
        now = await bus.submit(task="now")
        await taken(bus, now)
    assert [entry for entry, _ in await bus.dead()] == ["99999999999999-0"]
    order = [e.data.task for e in bus.events("task.submitted")]
    assert order == [*early, *late, now]
    proven(bus)


async def test_several_bad_ids_at_several_doors_leave_one_after_the_other(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.tell("door.opened", name="ada")
        for entry_id in ("99999999999998-5", "99999999999999-0", HIGHEST):
            await close(bus, entry_id, "ada")
        await close(bus, HIGHEST)

        async def four() -> bool:
            return len(await bus.dead()) >= 2

        await wait_until(four, what="both doors set back")

        async def open_again() -> bool:
            try:
                await bus.tell("task.submitted", door="ada", text="x", task="a", id="a")
                await bus.tell("task.submitted", text="y", task="b", id="b")
            except CommandRefused:
                return False
            return True

        await wait_until(open_again, what="doors that take entries")
        await taken(bus, "a", "b")


async def test_an_id_of_the_near_future_is_an_entry_as_any_other(bus: Bus) -> None:
    seconds, _ = await bus.client.call("TIME")
    near = f"{int(seconds) * 1000 + AHEAD_MS - 30_000}-0"
    data = msgspec.json.encode({"text": "x", "task": "near"})
    async with running(bus.host()):
        await bus.client.call(
            "XADD", bus.keys.main_door, near, "type", "task.submitted", "data", data
        )
        await taken(bus, "near")
        await taken(bus, await bus.submit(task="next"))
    assert await bus.dead() == []


async def test_a_desk_that_dies_between_dead_letter_and_door_buries_nothing_twice(bus: Bus) -> None:
    await close(bus, "99999999999999-0")
    door, entry = bus.keys.main_door, "99999999999999-0"
    await bus.client.call("HSET", bus.keys.deadletter_marks, f"{door} {entry}", entry)
    async with running(bus.host()):
        await taken(bus, await bus.submit(task="on"))
    assert await bus.dead() == []  # it stood there when the first desk died


async def test_a_key_that_is_no_stream_in_the_place_of_a_door_leaves_the_others_open(
    bus: Bus,
) -> None:
    async with running(bus.host()):
        await bus.tell("door.opened", name="ada")
        await taken(bus, await bus.submit(task="one"))
        await bus.client.call("SET", bus.keys.door("ada"), "no stream")
        await taken(bus, await bus.submit(task="two"))
        await bus.client.call("DEL", bus.keys.door("ada"))
        await bus.tell("task.submitted", door="ada", text="x", task="three")
        await taken(bus, "three")


async def test_even_the_shared_door_may_be_no_stream_for_a_while(bus: Bus) -> None:
    await bus.client.call("SET", bus.keys.main_door, "no stream")
    async with running(bus.host()):
        await wait_until(lambda: bus.events("policy.changed"), what="the desk is at work")
        await bus.client.call("DEL", bus.keys.main_door)
        await taken(bus, await bus.submit(task="one"))


# -- doors of one's own ----------------------------------------------------------------------------


async def test_a_door_is_read_from_the_moment_it_is_opened(bus: Bus) -> None:
    first = bus.host()
    async with running(first):
        await bus.tell("task.submitted", door="ada", text="x", task="waits")  # nobody opened it
        await taken(bus, await bus.submit(task="one"))
        assert not [e for e in bus.events("task.submitted") if e.data.task == "waits"]
        await bus.tell("door.opened", name="ada")
        await taken(bus, "waits")
        await bus.tell("door.opened", name="ada")  # a repeat says nothing
        await taken(bus, await bus.submit(task="two"))
    assert [e.data.name for e in bus.events("door.opened")] == ["ada"]
    async with running(bus.host()):  # another desk knows of it from the log
        await bus.tell("task.submitted", door="ada", text="x", task="three")
        await taken(bus, "three")
    [event] = [e for e in bus.events("task.submitted") if e.data.task == "three"]
    assert event.source == bus.keys.door("ada")
    proven(bus)


async def test_emptying_one_door_does_nothing_to_another(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.tell("door.opened", name="ada")
        await bus.client.call("XADD", bus.keys.door("ada"), "MAXLEN", 0, "*", "type", "x")
        await taken(bus, await bus.submit(task="one"))
        await bus.tell("task.submitted", door="ada", text="x", task="two")
        await taken(bus, "two")


async def test_doors_that_nobody_opened_are_found_and_named(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.put("type", "x", door="mallory")
    await bus.client.call("SET", bus.keys.door("no-stream"), "x", "EX", 60)
    async with running(bus.host()):

        async def found() -> bytes:
            return await bus.client.call("GET", bus.keys.stray_doors) or b""

        kept = msgspec.json.decode(await wait_until(found, what="the sweep"))
    assert kept == {"doors": [bus.keys.door("mallory")], "count": 1}
    assert "asb acl mallory opens it" in caplog.text
    assert await bus.client.call("TTL", bus.keys.stray_doors) > 0


async def test_the_sweep_takes_at_most_a_hundredth_of_the_servers_time(
    client: Client, keys: Keys
) -> None:
    """By its own clock: the time it waits for answers is more than what the server spends."""
    doors = [keys.door(f"d{n}") for n in range(2_000)]
    await client.pipeline(("XADD", door, "*", "a", "b") for door in doors)
    strays = StrayDoors(client, keys)
    assert await strays.sweep(doors, rest=False) == []
    assert await strays.sweep(doors[1:], rest=False) == doors[:1]
    assert strays.steps >= 8
    whole, busy = strays.busy_s, strays.busy_s
    began = await client.call("TIME")
    await strays.sweep(doors)
    ended = await client.call("TIME")
    took = int(ended[0]) - int(began[0]) + (int(ended[1]) - int(began[1])) / 1e6
    busy = strays.busy_s - whole
    assert busy <= 0.02 * took  # the last step is not followed by a rest
