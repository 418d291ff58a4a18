"""The inbox projector: what a worker is asked to do stands in its inbox, whatever happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from events.envelope import Event
from events.keys import Keys
from services.inbox.projector import Inboxes
from services.store.client import Client
from services.store.prompts import Texts
from services.store.scripts import script
from tests.given import Bus as InMemory
from tests.integration.test_engine_ground import Bus, Hands, proven, running
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio


async def stands(bus: Bus, worker: str = "w1") -> list[tuple[str, str]]:
    """Log id and task of every entry, in the order a worker reads them."""
    found = await bus.client.call("XRANGE", bus.keys.inbox(worker), "-", "+")
    return [(fields[1].decode(), fields[5].decode()) for _, fields in found]


def asked(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.log_id, event.data.task) for event in events]


async def test_entries_carry_the_log_s_id_and_all_a_worker_needs(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit("Fix the crash", priority="high", timeout_s=100)
        entry = await worker.takes()
    [dispatched] = bus.events("task.dispatched")
    assert entry == {
        "log": dispatched.log_id,
        "type": "task.dispatched",
        "task": task,
        "attempt": "1",
        "session": worker.session,
        "text": "Fix the crash",
        "kind": "debugging",
        "agent": "codex",
        "model": "sonnet",
        "deadline": str(dispatched.at + 100_000_000),
        "priority": "high",
        "timeout_s": "100",
    }


async def test_a_deleted_inbox_is_written_again_for_what_is_open(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join(capacity=10)
        tasks = [await bus.submit(f"task {n}") for n in range(6)]
        for _ in range(3):
            await worker.does(await worker.takes())
        await bus.ended(*tasks[:3])
        await wait_until(lambda: len(bus.events("task.dispatched")) == 6)
    await bus.client.call("DEL", bus.keys.inbox("w1"))
    async with running(bus.host()):

        async def again() -> bool:
            return len(await stands(bus)) == 3

        await wait_until(again)
        late = await Hands(bus, "w1").inbox()
        assert late == []  # entries name the session they are for
    found = await stands(bus)
    assert found == asked(bus.events("task.dispatched"))[3:]
    texts = await bus.client.call("XRANGE", bus.keys.inbox("w1"), "-", "+")
    assert [fields[11] for _, fields in texts] == [b"task 3", b"task 4", b"task 5"]


async def test_a_restart_writes_nothing_twice(bus: Bus) -> None:
    for _ in range(3):
        async with running(bus.host()):
            if not bus.events("worker.joined"):
                await Hands(bus).join(capacity=20)
            await bus.submit_many(5)
            await wait_until(lambda: _all_written(bus))
    assert await stands(bus) == asked(bus.events("task.dispatched"))
    proven(bus)


async def _all_written(bus: Bus) -> bool:
    submitted = len(await bus.client.call("XRANGE", bus.keys.main_intake, "-", "+")) - 1
    return len(await stands(bus)) == submitted


async def test_two_projectors_write_each_entry_once(bus: Bus) -> None:
    async with running(bus.host(), bus.host("inbox"), bus.host("inbox")):
        worker = await Hands(bus).join(capacity=200)
        await bus.submit_many(200)
        await wait_until(lambda: _all_written(bus))
        await stays(lambda: _all_written(bus), during=0.2)
        assert len(await worker.inbox()) == 200
    assert sorted(await stands(bus)) == sorted(asked(bus.events("task.dispatched")))


async def test_cancel_requests_of_a_deleted_inbox_come_again(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit()
        await worker.takes()
        await bus.tell("task.cancel_requested", task=task)
        await worker.takes("task.cancel_requested")
    await bus.client.call("DEL", bus.keys.inbox("w1"))
    async with running(bus.host()):
        await wait_until(lambda: _two(bus))
    found = await bus.client.call("XRANGE", bus.keys.inbox("w1"), "-", "+")
    assert [fields[3] for _, fields in found] == [b"task.dispatched", b"task.cancel_requested"]


async def test_a_pause_and_its_end_reach_the_worker_whatever_was_lost(bus: Bus) -> None:
    """The whole way: overrun, refusal, a raised limit, extension; and a deleted inbox between."""

    async def kinds() -> list[bytes]:
        found = await bus.client.call("XRANGE", bus.keys.inbox("w1"), "-", "+")
        return [fields[3] for _, fields in found]

    def limits(amount: int) -> dict[str, Any]:
        most = {"scope": "global", "unit": "tokens", "window": "month", "amount": amount}
        return {"set_limits": [most]}

    refused = [b"task.dispatched", b"hold.refused"]
    async with running(bus.host()):
        await bus.tell("policy.changed", guard={"action": "pause"}, **limits(2_000))
        worker = await Hands(bus).join()
        await bus.submit(estimate_tokens=500)
        entry = await worker.takes()
        await bus.tell(
            "usage.recorded",
            agent="codex",
            input_tokens=1_990,
            task=entry["task"],
            attempt=int(entry["attempt"]),
            session=entry["session"],
        )
        said = await worker.takes("hold.refused")
        assert (said["action"], said["task"]) == ("pause", entry["task"])
    await bus.client.call("DEL", bus.keys.inbox("w1"))
    async with running(bus.host()):
        await wait_until(lambda: _holds(kinds, refused))
        await bus.tell("policy.changed", **limits(50_000))
        await worker.takes("hold.extended")
    await bus.client.call("DEL", bus.keys.inbox("w1"))
    async with running(bus.host()):
        await wait_until(lambda: _holds(kinds, [b"task.dispatched", b"hold.extended"]))


async def _holds(look: Callable[[], Awaitable[list[bytes]]], wanted: list[bytes]) -> bool:
    return await look() == wanted


async def _two(bus: Bus) -> bool:
    return len(await stands(bus)) == 2


async def test_a_foreign_key_under_an_inbox_or_view_gives_way(client: Client, keys: Keys) -> None:
    await client.call("SET", keys.inbox("w1"), "not a stream")
    await client.call("LPUSH", keys.throttle, "not a view")
    assert await script("inbox")(client, [keys.inbox("w1")], [1, "5-0", 1, "type", "x"]) == 1
    assert await script("view")(client, [keys.throttle], ["5-0", '{"as_of":"5-0"}', 0]) == 1
    assert await client.call("XLEN", keys.inbox("w1")) == 1
    assert await client.call("GET", keys.throttle) == b'{"as_of":"5-0"}'


@pytest.mark.parametrize("end", ["task.failed", "task.completed", "task.cancelled", "worker.left"])
async def test_an_attempt_that_ended_in_the_batch_of_its_dispatch_is_offered_to_nobody(
    client: Client, keys: Keys, end: str
) -> None:
    """Two turns read as one batch, as a projector on its own does: no inbox without a name."""
    engine = InMemory()
    engine.join("w1")
    task = engine.submit()
    engine.run()
    if end == "task.cancelled":
        engine.send("task.cancel_requested", task=task)
    if end == "worker.left":
        engine.send(end, worker="w1")
    else:
        engine.report(end, task, error="no luck")
    engine.run()
    inboxes = Inboxes(client, keys, Texts())
    inboxes.feed(engine.events, engine.state)
    await inboxes.run()
    found = await client.call("KEYS", keys.inbox("*"))
    assert keys.inbox("").encode() not in found
    entries = await client.call("XRANGE", keys.inbox("w1"), "-", "+")
    assert b"task.dispatched" not in [fields[3] for _, fields in entries]
