"""Progress documents over a real Redis: taken once, kept as views, never overwritten unread."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextvars import ContextVar
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from events.envelope import words_of
from events.keys import Keys
from projections import usage
from services.progress import marks, watch
from services.progress.projector import Documents
from services.runtime.errors import RedisUnavailable
from services.store import acl
from services.store.client import Client
from tests.integration.test_engine_ground import Bus, Hands, running
from tests.servers import RedisServer
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio
DAY_S = 86_400
UPDATED = "progress.updated"


@pytest.fixture(scope="module", params=["reported", "scanned"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RedisServer]:
    """A server that tells of keys that change, and one that does not."""
    events = "K$gx" if request.param == "reported" else ""
    folder = tmp_path_factory.mktemp("progress")
    own = RedisServer(folder, options=("--notify-keyspace-events", events)).start()
    yield own
    own.stop()


@pytest.fixture
async def bus(server: RedisServer) -> AsyncGenerator[Bus]:
    """A bus on an empty server."""
    server.call("FLUSHALL")
    made = Bus(server.url, "asb")
    yield made
    await made.close()


def key(bus: Bus, name: str = "claude:CL-102") -> str:
    return bus.keys.progress_prefix + name


async def put(bus: Bus, value: Any, name: str = "claude:CL-102") -> None:
    """SET as an agent does it."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    await bus.client.call("SET", key(bus, name), raw)


async def view(bus: Bus, name: str = "claude:CL-102") -> dict[str, Any]:
    """What stands under the key, if it is a view of ours; else nothing."""
    value = await bus.client.call("GET", key(bus, name))
    return json.loads(value) if value and marks.ours(key(bus, name), value) else {}


async def view_of(
    bus: Bus,
    name: str = "claude:CL-102",
    fields: Mapping[str, object] | None = None,
    **more: object,
) -> dict[str, Any]:
    """Wait for the view of a document with these fields."""
    wanted = {**(fields or {}), **more}

    async def look() -> dict[str, Any]:
        found: dict[str, Any] = {}
        with contextlib.suppress(RedisUnavailable):
            found = await view(bus, name)
        return found if wanted.items() <= found.items() else {}

    return await wait_until(look, 40, f"the view of {wanted}")


def documents(bus: Bus) -> list[Any]:
    return [words_of(e)["document"] for e in bus.events(UPDATED)]


def tokens(bus: Bus) -> int:
    return usage.total(bus.folded().lifetime.values()).tokens


# -- seen, taken, shown ------------------------------------------------------------------------


async def test_a_document_becomes_an_event_and_a_view_that_keeps_its_fields(bus: Bus) -> None:
    document = {
        "status": "in_progress",
        "progress": "60%",
        "own": {"deep": [1.5, None]},
        "tokens_used": {"prompt": 1000, "completion": 1500},
        "timestamp": "never",
    }
    async with running(bus.host()):
        await put(bus, document)
        shown = await view_of(bus, status="in_progress")
    known = shown.pop("asb")
    assert shown == document
    assert documents(bus) == [document]
    event = bus.events(UPDATED)[0]
    expected = {"status": "in_progress", "progress": 60, "tokens_total": 2500, "attempt": 0}
    assert expected.items() <= known.items()
    assert (known["agent"], known["task"], known["flagged"]) == ("claude", "CL-102", False)
    assert known["document"] == event.log_id
    assert tokens(bus) == 2500


async def test_a_document_is_taken_once_however_often_it_is_seen(bus: Bus) -> None:
    document = {"status": "working", "tokens_used": 700}
    for _ in range(2):
        async with running(bus.host(), bus.host()):
            if not documents(bus):
                await put(bus, document)
            await view_of(bus, status="working")
            await stays(lambda: len(documents(bus)) == 1, 0.8, "one event")
    assert tokens(bus) == 700


async def test_the_same_document_set_again_after_another_counts_as_the_last(bus: Bus) -> None:
    a, b = {"status": "A", "tokens_used": 10}, {"status": "B", "tokens_used": 30}
    async with running(bus.host()):
        for document in (a, b, a):
            await put(bus, document)
            await view_of(bus, fields=document)
    assert documents(bus) == [a, b, a]
    assert bus.folded().progress["claude:CL-102"].flag == "tokens fell from 30 to 10"
    assert tokens(bus) == 30


async def test_the_very_same_document_set_again_is_told_again_and_adds_nothing(bus: Bus) -> None:
    document = {"status": "A", "tokens_used": 10}
    async with running(bus.host()):
        for times in (1, 2, 3):
            await put(bus, document)
            await wait_until(lambda n=times: len(documents(bus)) == n, 10)
            await view_of(bus, fields=document)
    assert tokens(bus) == 10


async def test_a_view_that_an_agent_changes_is_a_document_of_that_agent(bus: Bus) -> None:
    async with running(bus.host()):
        await put(bus, {"status": "in_progress", "progress": 60, "mine": 1})
        await view_of(bus, status="in_progress")
        text = (await bus.client.call("GET", key(bus))).replace(b'"progress":60', b'"progress":80')
        await put(bus, text)
        shown = await view_of(bus, progress=80)
    assert (shown["asb"]["progress"], shown["mine"]) == (80, 1)


async def test_what_was_written_while_nobody_watched_is_found_at_the_start(bus: Bus) -> None:
    for n in range(250):
        await put(bus, {"n": n}, f"agent{n % 7}:task-{n}")
    async with running(bus.host()):
        await wait_until(lambda: len(documents(bus)) == 250, 10)
        await view_of(bus, "agent1:task-246" if 246 % 7 == 1 else "agent0:task-245")


async def test_bare_words_are_documents(bus: Bus) -> None:
    async with running(bus.host()):
        for n, word in enumerate((b"completed", b'"in-progress"', b"done\n", b"working")):
            await put(bus, word, f"claude:{n}")
        await wait_until(lambda: len(documents(bus)) == 4, 10)
        shown = await view_of(bus, "claude:2", status="done")
    assert (shown["asb"]["status"], shown["asb"]["progress"]) == ("completed", 100)


async def test_what_is_no_document_is_reported_once_and_left_alone(bus: Bus) -> None:
    bad = {"a:1": b"<html>", "b:2": b"{'single': 1}", "nocolon": b"{}", "c:3": b"x" * 200_000}
    for _ in range(2):
        async with running(bus.host()):
            for name, value in bad.items():
                await put(bus, value, name)
            await bus.client.call("HSET", key(bus, "d:hash"), "f", "v")
            await put(bus, {"status": "fine"}, "e:5")

            async def four() -> bool:
                return len(await bus.dead()) == 4

            await wait_until(four, 40)
            await view_of(bus, "e:5", status="fine")
            await stays(four, 0.7, "four dead letters")
    errors = sorted(error for _, error in await bus.dead())
    assert [e.split(":")[0].split(";")[0] for e in errors] == [
        "document has more than 65,536 bytes",
        "document is not JSON",
        "document is not JSON",
        "no task",
    ]
    assert await bus.client.call("GET", key(bus, "a:1")) == b"<html>"


async def test_a_document_out_of_the_intake_gets_a_view_too(bus: Bus) -> None:
    async with running(bus.host()):
        document = {"status": "started"}
        await bus.tell("progress.updated", agent="codex", task="m:1", document=document)
        await view_of(bus, "codex:m:1", status="started")


async def test_foreign_work_takes_no_task_id(bus: Bus) -> None:
    async with running(bus.host()):
        await put(bus, {"tokens_used": 10})
        await view_of(bus)
        await bus.submit(task="CL-102")
        await wait_until(lambda: bus.events("task.submitted"))
    assert await bus.dead() == []


# -- attempts ----------------------------------------------------------------------------------


async def test_a_running_task_shows_who_runs_it_and_ends_on_what_was_told(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        await bus.submit(task="CL-102", agent="claude")
        entry = await worker.takes()
        await worker.says("started", entry)
        await put(bus, {"status": "in_progress", "tokens_used": 900})
        shown = await view_of(bus, status="in_progress")
        assert (shown["asb"]["attempt"], shown["asb"]["worker"]) == (1, worker.name)
        assert await bus.client.call("TTL", key(bus)) == -1
        await worker.says("completed", entry)
        state = await bus.ended("CL-102")

        async def over() -> bool:
            return (await view(bus))["asb"].get("task_status") == "completed"

        await wait_until(over, 40)
        assert 29 * DAY_S < await bus.client.call("TTL", key(bus)) <= 30 * DAY_S
    assert state.outcomes["CL-102"].tokens == 900


async def test_ended_foreign_work_expires(bus: Bus) -> None:
    async with running(bus.host()):
        await put(bus, {"status": "completed"})
        await view_of(bus, status="completed")
        assert 29 * DAY_S < await bus.client.call("TTL", key(bus)) <= 30 * DAY_S
        await put(bus, {"status": "in_progress"})
        await view_of(bus, status="in_progress")
        assert await bus.client.call("TTL", key(bus)) == -1


# -- races -------------------------------------------------------------------------------------


async def test_a_newer_document_is_never_overwritten_unread(bus: Bus) -> None:
    """Many writers, no pauses: of each key the last document wins, and stands on the log."""
    writers, rounds = 8, 60

    async def write(name: str) -> None:
        client = Client(bus.url)
        for n in range(rounds):
            document = json.dumps({"n": n, "tokens_used": 10 * n}).encode()
            await client.call("SET", key(bus, name), document)
            await anyio.lowlevel.checkpoint()
        await client.close()

    names = [f"agent{i}:t" for i in range(writers)]
    async with running(bus.host(), bus.host()):
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(write, name)
        for name in names:
            await view_of(bus, name, n=rounds - 1)
    last = {e.data.agent: words_of(e)["document"] for e in bus.events(UPDATED)}
    assert {d["n"] for d in last.values()} == {rounds - 1}
    assert tokens(bus) == writers * 10 * (rounds - 1)
    assert await bus.dead() == []


async def test_a_view_does_not_replace_what_was_written_since_it_was_read(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between reading and replacing, held open."""
    final_charge, unread = Documents.settled, json.dumps({"status": "unread"}).encode()
    interrupted: list[bytes] = []

    async def interrupt(documents: Documents) -> Any:
        there = await bus.client.call("GET", key(bus))
        if bus.events(UPDATED) and not interrupted:
            interrupted.append(there)
            await put(bus, unread)
        return await final_charge(documents)

    monkeypatch.setattr(Documents, "settled", interrupt)
    async with running(bus.host()):
        await put(bus, {"status": "first"})
        await view_of(bus, status="unread")
    assert interrupted
    assert [d["status"] for d in documents(bus)] == ["first", "unread"]


async def test_a_document_whose_view_is_written_while_it_is_looked_at_is_taken_once(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asb redis` does it: at the intake and under its key. What was read there is judged only
    when the view has taken its place."""
    read_and_take, settled = Documents.read_and_take, Documents.settled
    looking = ContextVar("looking", default=False)
    judged: list[bool] = []

    async def look(documents: Documents, names: list[str]) -> None:
        looking.set(True)
        await read_and_take(documents, names)
        judged.append(True)

    async def hold(documents: Documents) -> Any:
        if looking.get() and not judged:
            await view_of(bus, status="done")
        return await settled(documents)

    monkeypatch.setattr(Documents, "read_and_take", look)
    monkeypatch.setattr(Documents, "settled", hold)
    await bus.tell(UPDATED, agent="claude", task="CL-102", document="done")
    await put(bus, "done")
    async with running(bus.host()):
        await wait_until(lambda: judged, 40)
        await put(bus, "later", "claude:CL-103")
        await view_of(bus, "claude:CL-103", status="later")
    assert documents(bus) == ["done", "later"]


async def test_a_document_put_over_a_view_on_its_way_survives_a_stopped_engine(bus: Bus) -> None:
    async with running(bus.host()):
        await put(bus, {"status": "one"})
        await view_of(bus, status="one")
    before = await bus.client.call("XLEN", bus.keys.main_intake)
    async with running(bus.host("progress")):
        await put(bus, {"status": "two"})

        async def at_the_intake() -> bool:
            return await bus.client.call("XLEN", bus.keys.main_intake) == before + 1

        await wait_until(at_the_intake, 40)
        await stays(at_the_intake, 0.8, "sent once")
        assert json.loads(await bus.client.call("GET", key(bus))) == {"status": "two"}
    async with running(bus.host()):
        await view_of(bus, status="two")
    assert [d["status"] for d in documents(bus)] == ["one", "two"]


async def test_two_buses_on_one_server_see_only_their_own(bus: Bus) -> None:
    other = Bus(bus.url, "team*1")
    async with running(bus.host(), other.host()):
        await put(bus, {"status": "ours"})
        await put(other, {"status": "theirs"})
        await view_of(bus, status="ours")
        await view_of(other, status="theirs")
    assert [d["status"] for d in documents(bus)] == ["ours"]
    assert [d["status"] for d in documents(other)] == ["theirs"]
    await other.close()


async def test_views_that_say_what_is_so_are_not_written_again(bus: Bus) -> None:
    async with running(bus.host()):
        for n in range(5):
            await put(bus, {"n": n}, f"a:{n}")
        before = [await view_of(bus, f"a:{n}", n=n) for n in range(5)]
    await bus.client.call("DEL", key(bus, "a:4"))
    async with running(bus.host()):
        again = await view_of(bus, "a:4", n=4)
        assert [await view(bus, f"a:{n}") for n in range(4)] == before[:4]
    assert again["asb"]["document"] == before[4]["asb"]["document"]


async def test_an_outage_loses_no_document(tmp_path: Path) -> None:
    own = RedisServer(tmp_path, appendfsync="always").start()
    bus = Bus(own.url, "asb")
    async with running(bus.host()):
        for n in range(3):
            await put(bus, {"n": n})
            await view_of(bus, n=n)
            own.call("SET", key(bus, "other:t"), json.dumps({"n": n}))
            own.restart()
            own.call("SET", key(bus, "third:t"), json.dumps({"n": n}))
            await view_of(bus, "other:t", n=n)
            await view_of(bus, "third:t", n=n)
    reported = [(e.data.agent, words_of(e)["document"]["n"]) for e in bus.events(UPDATED)]
    assert sorted(reported) == [(a, n) for a in ("claude", "other", "third") for n in range(3)]
    await bus.close()
    own.stop()


# -- told or scanned ---------------------------------------------------------------------------


async def again(loop: watch.Loop) -> None:
    while True:
        await loop.run()


async def test_scanning_stops_while_the_server_tells_and_goes_on_when_it_falls_silent(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PROBE_S", 0.1)
    monkeypatch.setattr(watch, "SWEEP_S", 0.05)
    before = server.call("CONFIG", "GET", "notify-keyspace-events")[1]
    client = Client(server.url)
    watching = watch.ProgressWatch(client, Keys("w"), Documents(client, Keys("w"), 65_536))

    async with anyio.create_task_group() as group:
        for loop in watching.loops():
            group.start_soon(again, loop)
        for events, works in (("K$", True), ("", False), ("KEA", True)):
            server.call("CONFIG", "SET", "notify-keyspace-events", events)
            await wait_until(lambda w=works: watching.works is w, 40, f"heard: {works}")
            if works:
                await wait_until(lambda: not watching.wanted, 40, "one sweep more")
                sweeps = watching.sweeps + 1
                await stays(lambda n=sweeps: watching.sweeps <= n, 0.3, "no scans")
            else:
                sweeps = watching.sweeps
                await wait_until(lambda n=sweeps: watching.sweeps > n + 2, 40, "scans")
        group.cancel_scope.cancel()
    server.call("CONFIG", "SET", "notify-keyspace-events", before)
    await client.close()
    server.call("FLUSHALL")


async def test_scans_keep_to_their_share_of_the_servers_time(bus: Bus, server: RedisServer) -> None:
    server.call("EVAL", "for i=1,30000 do redis.call('SET','other:'..i,1) end", 0)
    watching = watch.ProgressWatch(bus.client, bus.keys, Documents(bus.client, bus.keys, 65_536))
    server.call("CONFIG", "RESETSTAT")
    started = anyio.current_time()
    await watching.sweep()
    took = anyio.current_time() - started
    stats = server.call("INFO", "commandstats").decode()
    line = next(line for line in stats.splitlines() if line.startswith("cmdstat_scan:"))
    used = int(line.partition("usec=")[2].partition(",")[0]) / 1e6
    assert used / took <= 0.01, f"{used:.4f} s of {took:.2f} s"


async def test_the_rights_of_a_service_are_enough(bus: Bus, server: RedisServer) -> None:
    line = acl.line("svc", "service", bus.keys, acl.password_hash("pw"), server.binary.version)
    server.call("ACL", "SETUSER", *line.split()[1:])
    limited = Bus(server.url.replace("redis://", "redis://svc:pw@"), "asb")
    reported = server.call("CONFIG", "GET", "notify-keyspace-events")[1] != b""
    watching = watch.ProgressWatch(
        limited.client, bus.keys, Documents(limited.client, bus.keys, 65_536)
    )
    async with anyio.create_task_group() as group:
        for loop in watching.loops():
            group.start_soon(again, loop)
        await wait_until(lambda: watching.works is reported and watching.sweeps > 0, 40)
        group.cancel_scope.cancel()
    async with running(limited.host()):
        await put(bus, {"status": "fine"})
        await view_of(bus, status="fine")
    await limited.close()
    server.call("ACL", "DELUSER", "svc")


async def test_no_bytes_under_progress_keys_stop_the_bus(bus: Bus) -> None:
    chance = Random(4)
    pieces = [b"{", b"}", b'"status"', b":", b"[", b"1e999", b"-1", b"\xff", b"null", b"\x00", b","]
    async with running(bus.host()):
        for n in range(150):
            value = b"".join(chance.choices(pieces, k=chance.randrange(12))) or chance.randbytes(20)
            name = chance.randbytes(3) if n % 3 == 0 else f"agent{n % 5}:t{n}".encode()
            await bus.client.call("SET", bus.keys.progress_prefix.encode() + name, value)
        for n, raw in enumerate((b"[" * 60_000, b'{"tokens_used":' * 900, b"1" * 60_000)):
            await put(bus, raw, f"deep:{n}")
        await put(bus, {"status": "fine", "tokens_used": 5}, "good:t")
        await view_of(bus, "good:t", status="fine")
        await put(bus, {"status": "still fine", "tokens_used": 7}, "good:t")
        await view_of(bus, "good:t", status="still fine")
    assert tokens(bus) == 7
