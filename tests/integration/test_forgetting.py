"""What people wrote is forgotten: at every state of a task, everywhere on the bus."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import pytest
from msgspec.structs import replace

from events.envelope import text_of
from events.keys import Keys
from projections import fold
from projections.state import State
from services.client import bus as client_bus
from services.client import forgetting, traces
from services.client.follow import story
from services.engine import removal
from services.runtime.settings_types import PrivacySettings
from services.store.client import Client, SyncClient
from services.store.rewrite import Rewrite, RewriteRefused
from tests.integration.test_engine_ground import Bus, asb_on, blocked, running, working
from tests.planted import plant
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

TEXT = "Umlaut \u00e4 Call Mrs. Abernathy, born 1961, about her loan number 5551234"
ANSWER = "She said that her brother Bartholomew pays from the third month on"
PIECES = ("Abernathy, born", "Bartholomew pays", "\u00e4 Call Mrs.")


@contextlib.asynccontextmanager
async def bus_of(redis_url: str, namespace: str, **privacy: Any) -> AsyncGenerator[Bus]:
    bus = Bus(redis_url, namespace)
    bus.settings = replace(bus.settings, privacy=PrivacySettings(**privacy))
    try:
        yield bus
    finally:
        await bus.close()


def digests(bus: Bus) -> dict[str, str]:
    """The state's digest at every place of the log."""
    state, known = State(), dict[str, str]()
    for event in bus.events():
        fold.apply(state, event)
        known[event.log_id] = state.digest()
    return known


async def pieces_in(bus: Bus, *pieces: str) -> list[str]:
    """Where a piece stands: every key of the bus and the server's file."""
    searched = await anyio.to_thread.run_sync(search, bus, pieces or PIECES)
    assert searched.looked
    return searched.places


def search(bus: Bus, pieces: tuple[str, ...]) -> traces.Trace:
    with contextlib.closing(SyncClient(bus.url)) as client:
        opened = client_bus.Bus(bus.settings, client, bus.keys)
        return traces.search(opened, traces.pieces_of(pieces))


async def forget(bus: Bus, *tasks: str, within: float = 30) -> forgetting.ForgetProgress:
    def ask() -> forgetting.ForgetProgress:
        with contextlib.closing(SyncClient(bus.url)) as client:
            opened = client_bus.Bus(bus.settings, client, bus.keys)
            since = opened.last_id()
            forgetting.request(opened, tasks)
            return forgetting.follow(opened, tasks, since, within)

    return await anyio.to_thread.run_sync(ask)


async def join(bus: Bus, name: str = "w1") -> str:
    return await bus.tell("worker.joined", worker=name, agent="claude", heartbeat="no", capacity=9)


async def attempt(bus: Bus, task: str, session: str, kind: str, **data: Any) -> None:
    await bus.tell(kind, task=task, attempt=1, session=session, **data)


async def dispatched(bus: Bus, *tasks: str) -> None:
    def look() -> bool:
        state = bus.folded()
        return all(task in state.tasks and state.tasks[task].worker for task in tasks)

    await wait_until(look, 10, "their dispatch")


async def a_life(bus: Bus) -> str:
    """A task of which somebody said something in every place."""
    session = await join(bus)
    task = await bus.submit(TEXT, note={"more": TEXT})
    await dispatched(bus, task)
    await attempt(bus, task, session, "task.started", note=TEXT)
    document = {"status": "working", "note": TEXT}
    await bus.client.call("SET", bus.keys.progress("claude", task), msgspec.json.encode(document))
    await bus.tell("progress.updated", agent="claude", task=task, document=document)
    await bus.tell(
        "usage.recorded", agent="claude", task=task, attempt=1, input_tokens=5, note=TEXT
    )
    await bus.tell("task.completed", task=task, attempt="one", session=session, result=ANSWER)
    await attempt(bus, task, session, "task.completed", result=ANSWER, usage={"input_tokens": 9})
    await bus.ended(task)
    return task


async def test_nothing_of_it_is_left_and_the_figures_stay(redis_url: str, namespace: str) -> None:
    """Given words at log, intake, inbox, dead letters and a progress key, when their task is
    forgotten, then no byte of them stands on the server, also not in its files, the state is the
    same at every place of the log, and the log goes on."""
    async with bus_of(redis_url, namespace) as bus, running(bus.host()):
        others = await bus.submit_many(3)
        task = await a_life(bus)
        assert len(await bus.dead()) == 1
        before = digests(bus)
        places = " ".join(await pieces_in(bus))
        for kind in ("events", "intake", "inbox", "deadletter", "progress"):
            assert f"{namespace}:{kind}" in places
        done = await forget(bus, task)
        assert done.removed is not None, done
        assert done.removed.entries >= 5
        assert await pieces_in(bus) == []
        after = digests(bus)
        assert {place: after[place] for place in before} == before
        more = await bus.submit("goes on")
        await dispatched(bus, more)
        shown = [text_of(e, "text") for e in bus.events("task.submitted")]
        assert shown.count("forgotten") == 1
        assert any("parser" in text for text in shown), others


@pytest.mark.parametrize("state", ["waiting", "dispatched", "started", "ended", "unknown"])
async def test_in_every_state(redis_url: str, namespace: str, state: str) -> None:
    """What is open is cancelled first; what comes later is stored as marks, and nothing runs."""
    async with bus_of(redis_url, namespace) as bus, running(bus.host()):
        session = await join(bus) if state != "waiting" else ""
        task = "never-heard-of" if state == "unknown" else await bus.submit(TEXT)
        if state in ("dispatched", "started", "ended"):
            await dispatched(bus, task)
        if state in ("started", "ended"):
            await attempt(bus, task, session, "task.started")
        if state == "ended":
            await attempt(bus, task, session, "task.completed", result=ANSWER)
            await bus.ended(task)
        assert (await forget(bus, task)).removed is not None
        if state in ("dispatched", "started"):
            await attempt(bus, task, session, "task.completed", result=ANSWER)
            await bus.ended(task)
        late = await bus.tell(
            "progress.updated", agent="claude", task=task, document={"note": ANSWER}
        )
        await bus.tell("task.submitted", task=task, text=TEXT)
        await wait_until(
            lambda: bus.folded().intakes.get(bus.keys.main_intake, "") >= late, 10, "it is taken"
        )
        log = b"".join(event.raw for event in bus.events())
        assert b"Abernathy" not in log
        assert b"Bartholomew" not in log
        letters = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
        assert b"Abernathy" not in repr(letters).encode()
        # Its raw entry leaves the intake within the hour.
        assert await bus.client.call("HGET", bus.keys.unclean, bus.keys.main_intake)


async def test_a_text_of_many_tasks_goes_in_one_rewrite(redis_url: str, namespace: str) -> None:
    async with bus_of(redis_url, namespace) as bus, running(bus.host()):
        tasks = await bus.submit_many(40)
        await wait_until(lambda: len(bus.folded().tasks) == 40, 10, "they are taken in")
        assert (await forget(bus, *tasks[:30])).removed is not None
        assert len(bus.events("words.removed")) <= 2
        texts = [text_of(e, "text") for e in bus.events("task.submitted")]
        assert [t for t in texts[:30] if t != "forgotten"] == []
        assert all("parser" in t for t in texts[30:])


async def test_from_that_moment_nothing_shows_it(redis_url: str, namespace: str) -> None:
    """Given words that cannot be taken out yet, then they are shown to nobody, and it is said."""
    async with bus_of(redis_url, namespace) as bus, running(bus.host()):
        task = await bus.submit(TEXT)
        await wait_until(lambda: task in bus.folded().tasks, 10, "it is taken in")
        await bus.client.call("SET", bus.keys.rewriter, "somebody else", "PX", 60_000)
        assert (await forget(bus, task, within=1.0)).taken
        with contextlib.closing(SyncClient(redis_url)) as client:
            opened = client_bus.Bus(bus.settings, client, bus.keys)
            events = story(opened, task)
        assert events[0].raw.count(b"Abernathy") == 0
        assert text_of(events[0], "text") == "forgotten"
        await bus.client.call("DEL", bus.keys.rewriter)
        await wait_until(lambda: bus.events("words.removed"), 10, "they are taken out")


async def test_words_that_are_old_enough_go_by_themselves(redis_url: str, namespace: str) -> None:
    """[privacy] keep_days: tasks that ended longer ago lose their words, the others keep them."""
    async with bus_of(redis_url, namespace) as bus:
        async with running(bus.host()):
            session = await join(bus)
            task, other = await bus.submit(TEXT), await bus.submit("still open")
            await dispatched(bus, task, other)
            await attempt(bus, task, session, "task.completed", result=ANSWER)
            await bus.ended(task)
        await aged(bus, days=3)
        async with running(bus.host()):
            session = await join(bus, "w2")
            recent = await bus.submit("ended today", worker="w2")
            await dispatched(bus, recent)
            await attempt(bus, recent, session, "task.completed", result="done")
            await bus.ended(recent)
        bus.settings = replace(bus.settings, privacy=PrivacySettings(keep_days=2))
        async with running(bus.host()):
            await wait_until(lambda: bus.events("words.removed"), 20, "they are taken out")
        (said,) = bus.events("words.removed")
        assert (said.data.tasks, said.data.until) == (1, "")
        assert [text_of(e, "text") for e in bus.events("task.submitted")] == [
            "forgotten",
            "still open",
            "ended today",
        ]


async def aged(bus: Bus, days: int) -> None:
    """The log as it would be had everything happened so many days ago."""
    entries = await bus.client.call("XRANGE", bus.keys.log, "-", "+")
    await bus.client.call("DEL", bus.keys.log, bus.keys.snapshot)
    for place, fields in entries:
        fields[9] = str(int(fields[9]) - days * 86_400_000_000).encode()
        await bus.client.call("XADD", bus.keys.log, place, *fields)


# -- the rewrite itself --------------------------------------------------------------------------


async def test_deleting_alone_leaves_the_bytes(redis_url: str, namespace: str) -> None:
    """Given a text between neighbours, when its entry is deleted, then the search still finds it:
    the search works, and deleting does not. A rewrite takes it away."""
    async with bus_of(redis_url, namespace) as bus:
        stream = bus.keys.intake()
        places: list[bytes] = []
        for text in ("before", TEXT, "after"):
            data = json.dumps({"text": text}, ensure_ascii=False)
            places.append(await bus.client.call("XADD", stream, "*", "data", data))
        await bus.client.call("XDEL", stream, places[1])
        assert await pieces_in(bus) != []
        done = await Rewrite(bus.client, stream, as_it_is, nothing).run()
        assert (done.copied, done.changed) == (2, 0)
        assert await pieces_in(bus) == []


async def nothing() -> None: ...


def as_it_is(_place: str, _fields: list[bytes]) -> list[bytes] | None:
    return None


async def test_ids_groups_and_counters_are_carried_over(redis_url: str, namespace: str) -> None:
    async with bus_of(redis_url, namespace) as bus:
        stream, call = bus.keys.intake("x"), bus.client.call
        for n in range(1, 1_501):
            await call("XADD", stream, f"{n}-1", "n", n, "text", TEXT)
        await call("XGROUP", "CREATE", stream, "readers", "0")
        await call("XREADGROUP", "GROUP", "readers", "ann", "COUNT", 7, "STREAMS", stream, ">")
        await call("XACK", stream, "readers", "3-1")
        await call("XADD", stream, "9999-7", "n", 0)
        await call("XDEL", stream, "9999-7")
        before = await look_at(bus, stream)

        def change(place: str, fields: list[bytes]) -> list[bytes] | None:
            number = int(place.partition("-")[0])
            return [] if number == 9 else [b"n", fields[1]] if number % 2 else None

        done = await Rewrite(bus.client, stream, change, nothing).run()
        assert (done.copied, done.changed) == (1_499, 750)
        after = await look_at(bus, stream)
        assert after["ids"] == [place for place in before["ids"] if place != b"9-1"]
        for what in ("last-generated-id", "entries-added", "max-deleted-entry-id"):
            assert after["info"].get(what.encode()) == before["info"].get(what.encode())
        assert after["groups"] == before["groups"]
        held = [
            [(place, who, times) for place, who, _, times in x["pending"]] for x in (before, after)
        ]
        assert held[0] == held[1]
        with pytest.raises(Exception, match="equal or smaller"):
            await call("XADD", stream, "9999-7", "n", 0)
        with contextlib.closing(SyncClient(redis_url)) as sync:
            assert set(sync.scan(f"*{namespace}*")) == {stream.encode()}


async def look_at(bus: Bus, stream: str) -> dict[str, Any]:
    call = bus.client.call
    info = await call("XINFO", "STREAM", stream)
    entries = await call("XRANGE", stream, "-", "+")
    return {
        "info": dict(zip(info[0::2], info[1::2], strict=True)),
        "ids": [place for place, _ in entries],
        "groups": await call("XINFO", "GROUPS", stream),
        "pending": await call("XPENDING", stream, "readers", "-", "+", 100),
    }


async def test_who_appends_and_reads_meanwhile_notices_nothing(
    redis_url: str, namespace: str
) -> None:
    """Entries that come during a rewrite are there afterwards, each once and in order; a reader
    that was blocked across the exchange hears of the next one."""
    async with bus_of(redis_url, namespace) as bus:
        stream, call = bus.keys.intake("x"), bus.client.call
        for n in range(1_200):
            await call("XADD", stream, "*", "n", n)
        steps = 0

        async def append() -> None:
            nonlocal steps
            steps += 1
            await call("XADD", stream, "*", "n", 1_199 + steps)

        await Rewrite(bus.client, stream, as_it_is, append).run()
        assert steps == 3
        entries = await call("XRANGE", stream, "-", "+")
        assert [int(fields[1]) for _, fields in entries] == list(range(1_203))
        heard: list[Any] = []

        async def read(task_status: anyio.abc.TaskStatus[None]) -> None:
            task_status.started()
            heard.append(await bus.client.block("XREAD", "BLOCK", 9_000, "STREAMS", stream, "$"))

        async with anyio.create_task_group() as group:
            await group.start(read)
            await wait_until(lambda: blocked(bus.client), 5, "the reader waits")
            await Rewrite(bus.client, stream, as_it_is, nothing).run()
            await call("XADD", stream, "*", "n", "news")
        assert heard[0][0][1][0][1] == [b"n", b"news"]


class Busy(Client):
    """A connection whose bus writes an entry behind whatever is read."""

    written = 0

    async def call(self, *command: str | bytes | int | float) -> Any:
        reply = await super().call(*command)
        if command[0] == "XRANGE" and self.written < 9:
            self.written += 1
            await super().call("XADD", str(command[1]), "*", "n", 99 + self.written)
        return reply


async def test_what_comes_at_the_last_moment_is_copied_too(redis_url: str, namespace: str) -> None:
    stream, client = Keys(namespace).intake("x"), Busy(redis_url)
    try:
        for n in range(600):
            await client.call("XADD", stream, "*", "n", n)
        await Rewrite(client, stream, as_it_is, nothing).run()
        entries = await client.call("XRANGE", stream, "-", "+")
        assert [int(fields[1]) for _, fields in entries] == [*range(600), 100, 101]
    finally:
        await client.close()


async def test_a_document_for_a_forgotten_task_goes(redis_url: str, namespace: str) -> None:
    """Given an agent that writes on at its progress key, then what it wrote is stored as marks, and
    the key goes."""
    async with bus_of(redis_url, namespace) as bus, running(bus.host()):
        task = await bus.submit(TEXT)
        await wait_until(lambda: task in bus.folded().tasks, 10, "it is taken in")
        assert (await forget(bus, task)).removed is not None
        key = bus.keys.progress("claude", task)
        await bus.client.call("SET", key, json.dumps({"note": ANSWER}))
        with contextlib.closing(SyncClient(redis_url)) as client:
            await wait_until(lambda: not client.call("GET", key), 20, "it goes")
        (said,) = bus.events("progress.updated")
        assert b"Bartholomew" not in said.raw


async def test_another_run_and_another_hand_spoil_no_stream(redis_url: str, namespace: str) -> None:
    """Given two rewrites of one stream at once, and a hand that deletes what was copied already,
    then what stands there afterwards is what would stand there without them."""
    async with bus_of(redis_url, namespace) as bus:
        stream, call = bus.keys.intake("x"), bus.client.call
        for n in range(1, 1_201):
            await call("XADD", stream, f"{n}-0", "n", n, "text", TEXT)
        began = 0

        async def disturb() -> None:
            nonlocal began
            began += 1
            if began == 2:
                await call("XDEL", stream, "1-0")
            if began == 4:
                await Rewrite(bus.client, stream, lambda _, f: f[:2], nothing).run()

        await Rewrite(bus.client, stream, as_it_is, disturb).run()
        entries = await call("XRANGE", stream, "-", "+")
        assert [int(fields[1]) for _, fields in entries] == list(range(2, 1_201))
        assert all(len(fields) == 2 for _, fields in entries)


async def test_memory_is_checked_first(redis_url: str, namespace: str) -> None:
    async with bus_of(redis_url, namespace) as bus:
        stream, beside = bus.keys.intake("x"), bus.client.beside
        for _ in range(50):
            await bus.client.call("XADD", stream, "*", "text", "x" * 100_000)
        info = await beside(stream, "INFO", "memory")
        used = next(int(line[12:]) for line in info.split() if line.startswith(b"used_memory:"))
        await beside(stream, "CONFIG", "SET", "maxmemory", used + 2_000_000)
        try:
            with pytest.raises(RewriteRefused, match="raise maxmemory"):
                await Rewrite(bus.client, stream, as_it_is, nothing).run()
        finally:
            await beside(stream, "CONFIG", "SET", "maxmemory", 0)


async def test_an_equal_task_takes_the_result_while_it_is_there(
    redis_url: str, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """submit --reuse: at no cost, through a chain of such; of a forgotten task nothing is taken."""
    async with bus_of(redis_url, namespace) as bus, running(bus.host()), working(bus, "w1"):
        asb = asb_on(bus, capsys)
        words = ("submit", TEXT, "--project", "loans", "--wait")
        assert "10 tokens" in await asb(*words, "--id", "first")
        for name in ("second", "third"):
            said = await asb(*words, "--id", name, "--reuse")
            assert said.splitlines()[-1] == "ok"
            assert "0 tokens" in said
        assert (await forget(bus, "first")).removed is not None
        assert "forgotten" in await asb("task", "second")
        said = await asb(*words, "--id", "fourth", "--reuse")
        [*_, last] = bus.events("task.completed")
        assert (last.data.task, last.data.reused) == ("fourth", "")


async def test_a_raw_entry_that_held_a_secret_leaves_its_intake(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the hour, its bytes too; what came after it stays for a log that goes back."""
    text, secret = plant("github")
    async with bus_of(redis_url, namespace) as bus:
        raw = await bus.tell("usage.recorded", agent="x", input_tokens=1, note=text)
        later = await bus.tell("usage.recorded", agent="x", input_tokens=1)
        async with running(bus.host()):
            await wait_until(lambda: len(bus.events("usage.recorded")) == 2, 10, "they are taken")
            assert await bus.client.call("HGET", bus.keys.unclean, bus.keys.main_intake)
            assert await pieces_in(bus, secret) != []
        monkeypatch.setattr(removal, "RAW_MS", -60_000)  # as if an hour had passed
        async with running(bus.host()):
            await wait_until(lambda: gone(bus), 20, "it leaves")
        assert await bus.client.call("XRANGE", bus.keys.main_intake, raw, raw) == []
        assert await bus.client.call("XRANGE", bus.keys.main_intake, later, later)
        assert await pieces_in(bus, secret) == []


def gone(bus: Bus) -> bool:
    """Whether nothing is left to be cleaned."""
    with contextlib.closing(SyncClient(bus.url)) as client:
        return not client.call("HLEN", bus.keys.unclean)
