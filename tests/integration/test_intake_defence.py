"""Intakes that somebody tries to close, empty or block: the engine reads on, and nothing is
lost."""

from __future__ import annotations

import msgspec
import pytest

from events.keys import Keys
from services.intake.intakes import AHEAD_MS
from services.runtime.errors import CommandRefused
from services.store.client import Client
from services.store.log import parse_id
from services.store.unregistered_intakes import UnregisteredIntakes
from tests.integration.test_engine_ground import Bus, proven, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

HIGHEST = "18446744073709551615-18446744073709551615"


async def taken(bus: Bus, *tasks: str) -> None:
    """Wait until these submissions stand on the log."""

    def all_there() -> bool:
        found = {e.data.task for e in bus.events("task.submitted")}
        return found >= set(tasks)

    await wait_until(all_there, what=f"{len(tasks)} submissions on the log")


async def close(bus: Bus, entry_id: str, intake: str | None = None) -> None:
    await bus.client.call("XADD", bus.keys.intake(intake), entry_id, "type", "x", "by", "eve")


async def last_id(bus: Bus, intake: str | None = None) -> str:
    flat = await bus.client.call("XINFO", "STREAM", bus.keys.intake(intake))
    return dict(zip(flat[::2], flat[1::2], strict=True))[b"last-generated-id"].decode()


@pytest.mark.parametrize("entry_id", ["99999999999999-0", HIGHEST], ids=["future", "highest"])
async def test_an_id_of_the_far_future_does_not_close_an_intake(bus: Bus, entry_id: str) -> None:
    async with running(bus.host()):
        before = await bus.submit(task="before")
        await close(bus, entry_id)

        async def set_back() -> bool:
            return parse_id(await last_id(bus)) < parse_id(entry_id)

        await wait_until(set_back, what="the intake set back")
        after = await bus.submit(task="after")
        await taken(bus, before, after)
    [(entry, error)] = await bus.dead()
    assert entry == entry_id
    assert "more than a minute in the future" in error
    assert await bus.client.call("HLEN", bus.keys.deadletter_marks) == 0
    proven(bus)


async def test_what_stood_at_the_intake_when_it_was_closed_is_taken(bus: Bus) -> None:
    """Nobody was there: entries before and behind the bad one, then an engine starts."""
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


async def test_several_bad_ids_at_several_intakes_leave_one_after_the_other(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.tell("intake.opened", name="ada")
        for entry_id in ("99999999999998-5", "99999999999999-0", HIGHEST):
            await close(bus, entry_id, "ada")
        await close(bus, HIGHEST)

        async def four() -> bool:
            return len(await bus.dead()) >= 2

        await wait_until(four, what="both intakes set back")

        async def open_again() -> bool:
            try:
                await bus.tell("task.submitted", intake="ada", text="x", task="a", id="a")
                await bus.tell("task.submitted", text="y", task="b", id="b")
            except CommandRefused:
                return False
            return True

        await wait_until(open_again, what="intakes that take entries")
        await taken(bus, "a", "b")


async def test_an_id_of_the_near_future_is_an_entry_as_any_other(bus: Bus) -> None:
    seconds, _ = await bus.client.call("TIME")
    near = f"{int(seconds) * 1000 + AHEAD_MS - 30_000}-0"
    data = msgspec.json.encode({"text": "x", "task": "near"})
    async with running(bus.host()):
        await bus.client.call(
            "XADD", bus.keys.main_intake, near, "type", "task.submitted", "data", data
        )
        await taken(bus, "near")
        await taken(bus, await bus.submit(task="next"))
    assert await bus.dead() == []


async def test_an_engine_that_dies_between_dead_letter_and_intake_buries_nothing_twice(
    bus: Bus,
) -> None:
    await close(bus, "99999999999999-0")
    intake, entry = bus.keys.main_intake, "99999999999999-0"
    await bus.client.call("HSET", bus.keys.deadletter_marks, f"{intake} {entry}", entry)
    async with running(bus.host()):
        await taken(bus, await bus.submit(task="on"))
    assert await bus.dead() == []  # it stood there when the first engine died


async def test_a_key_that_is_no_stream_in_the_place_of_an_intake_leaves_the_others_open(
    bus: Bus,
) -> None:
    async with running(bus.host()):
        await bus.tell("intake.opened", name="ada")
        await taken(bus, await bus.submit(task="one"))
        await bus.client.call("SET", bus.keys.intake("ada"), "no stream")
        await taken(bus, await bus.submit(task="two"))
        await bus.client.call("DEL", bus.keys.intake("ada"))
        await bus.tell("task.submitted", intake="ada", text="x", task="three")
        await taken(bus, "three")


async def test_even_the_shared_intake_may_be_no_stream_for_a_while(bus: Bus) -> None:
    await bus.client.call("SET", bus.keys.main_intake, "no stream")
    async with running(bus.host()):
        await wait_until(lambda: bus.events("policy.changed"), what="the engine is at work")
        await bus.client.call("DEL", bus.keys.main_intake)
        await taken(bus, await bus.submit(task="one"))


# -- intakes of one's own ----------------------------------------------------------------------


async def test_an_intake_is_read_from_the_moment_it_is_opened(bus: Bus) -> None:
    first = bus.host()
    async with running(first):
        await bus.tell("task.submitted", intake="ada", text="x", task="waits")  # nobody opened it
        await taken(bus, await bus.submit(task="one"))
        assert not [e for e in bus.events("task.submitted") if e.data.task == "waits"]
        await bus.tell("intake.opened", name="ada")
        await taken(bus, "waits")
        await bus.tell("intake.opened", name="ada")  # a repeat says nothing
        await taken(bus, await bus.submit(task="two"))
    assert [e.data.name for e in bus.events("intake.opened")] == ["ada"]
    async with running(bus.host()):  # another engine knows of it from the log
        await bus.tell("task.submitted", intake="ada", text="x", task="three")
        await taken(bus, "three")
    [event] = [e for e in bus.events("task.submitted") if e.data.task == "three"]
    assert event.source == bus.keys.intake("ada")
    proven(bus)


async def test_emptying_one_intake_does_nothing_to_another(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.tell("intake.opened", name="ada")
        await bus.client.call("XADD", bus.keys.intake("ada"), "MAXLEN", 0, "*", "type", "x")
        await taken(bus, await bus.submit(task="one"))
        await bus.tell("task.submitted", intake="ada", text="x", task="two")
        await taken(bus, "two")


async def test_intakes_that_nobody_opened_are_found_and_named(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.put("type", "x", intake="mallory")
    await bus.client.call("SET", bus.keys.intake("no-stream"), "x", "EX", 60)
    async with running(bus.host()):

        async def found() -> bytes:
            return await bus.client.call("GET", bus.keys.unregistered_intakes) or b""

        kept = msgspec.json.decode(await wait_until(found, what="the sweep"))
    assert kept == {"intakes": [bus.keys.intake("mallory")], "count": 1}
    assert "asb acl mallory opens it" in caplog.text
    assert await bus.client.call("TTL", bus.keys.unregistered_intakes) > 0


async def test_the_sweep_takes_at_most_a_hundredth_of_the_servers_time(
    client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own clock: the time it waits for answers is more than what the server spends."""
    intakes = [keys.intake(f"d{n}") for n in range(2_000)]
    await client.pipeline(("XADD", intake, "*", "a", "b") for intake in intakes)
    strays = UnregisteredIntakes(client, keys)
    assert await strays.sweep(intakes, rest=False) == []
    assert await strays.sweep(intakes[1:], rest=False) == intakes[:1]
    assert strays.steps >= 8
    rests: list[float] = []
    seen = strays.busy_s

    async def rest(seconds: float) -> None:
        nonlocal seen
        assert seconds >= 99 * (strays.busy_s - seen) * 0.999
        seen = strays.busy_s
        rests.append(seconds)

    before = strays.steps
    monkeypatch.setattr("services.store.unregistered_intakes.anyio.sleep", rest)
    await strays.sweep(intakes)
    assert len(rests) == strays.steps - before - 1  # the last step is not followed by a rest
