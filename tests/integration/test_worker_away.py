"""A worker whose Redis goes away: reports are kept, leases are honoured, sessions begin again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

from events.keys import Keys
from events.worker import WorkerHeartbeat
from services.runtime.errors import RedisUnavailable
from services.store.client import Client
from services.worker import Task, serve
from services.worker.outbox import Outbox
from tests.integration.test_worker_session import Engine, for_ever, options, working
from tests.servers import RedisServer
from tests.wait import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def own(tmp_path: Path) -> Generator[RedisServer]:
    """A server of the test's own, to be killed."""
    server = RedisServer(tmp_path / "redis", appendfsync="always").start()
    yield server
    server.stop()


@pytest.fixture
async def there(own: RedisServer) -> AsyncGenerator[Client]:
    opened = Client(own.url)
    yield opened
    await opened.close()


async def again(server: RedisServer) -> None:
    await anyio.to_thread.run_sync(server.start)


async def test_results_made_while_redis_is_away_are_reported_in_order_afterwards(
    own: RedisServer, there: Client
) -> None:
    go_on = anyio.Event()
    ended: list[str] = []

    async def handle(task: Task) -> str:
        await go_on.wait()
        ended.append(task.id)
        return "done meanwhile"

    async with working(there, Keys(), options(handle, capacity=50)) as engine:
        for n in range(50):
            await engine.dispatch(f"t{n}")

        async def all_started() -> bool:
            return len(await engine.reports("task.started")) == 50

        await wait_until(all_started)
        own.kill9()
        go_on.set()
        await wait_until(lambda: len(ended) == 50)
        await again(own)

        async def all_reported() -> bool:
            return len({r["task"] for r in await engine.reports("task.completed")}) == 50

        await wait_until(all_reported, within=15)
        order = [r["task"] for r in await engine.reports("task.completed")]
        assert list(dict.fromkeys(order)) == ended
        assert len(await engine.reports("worker.joined")) == 1  # the lease had not ended


async def test_a_worker_that_cannot_renew_ends_its_tasks_before_its_lease_does(
    own: RedisServer, there: Client
) -> None:
    ended_at: list[float] = []
    renewed: list[float] = []

    class Watch:
        async def prepare(self) -> None: ...

        def renewed(self, until: float, end: float, /) -> None:
            renewed.append(anyio.current_time())

        async def run(self, task: Task, /) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended_at.append(anyio.current_time())

    settings = options(Watch(), lease_s=2, heartbeat_s=0.2)
    async with working(there, Keys(), settings) as engine:
        first = engine.session
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        own.kill9()
        await wait_until(lambda: ended_at)
        assert 1.0 < ended_at[0] - renewed[-1] < 2.0
        await again(own)
        await engine.joined(2)
        said = await engine.report("task.failed", "t1")
        assert said["session"] == first
        assert (said["error"], said["retryable"]) == ("the worker could not renew its lease", True)
        kinds = [kind for _, kind, _ in await engine.entries()]
        assert kinds == ["worker.joined", "task.started", "task.failed", "worker.joined"]


async def test_a_frozen_redis_counts_as_away(own: RedisServer, there: Client) -> None:
    """It holds its connections and answers nothing: no error ever comes."""
    ended = anyio.Event()

    async def handle(task: Task) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with working(there, Keys(), options(handle, lease_s=2, heartbeat_s=0.2)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        assert own.process is not None
        own.process.send_signal(signal.SIGSTOP)
        with anyio.move_on_after(5):
            await ended.wait()
        own.process.send_signal(signal.SIGCONT)
        assert ended.is_set()
        assert (await engine.report("task.failed", "t1"))["error"].endswith("renew its lease")
        await engine.joined(2)


async def test_a_server_that_lost_the_join_is_joined_again(own: RedisServer, there: Client) -> None:
    async with working(there, Keys(), options(for_ever)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        own.kill9()
        own.aof_file().write_bytes(b"")
        await again(own)
        await engine.joined(1)

        async def alive() -> Any:
            value = await there.call("GET", "asb:worker:w1")
            return WorkerHeartbeat.read(value).session == engine.session

        await wait_until(alive)


async def test_a_worker_started_before_its_redis_joins_when_it_comes(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "late")
    client = Client(server.url)
    stop = anyio.Event()
    try:
        async with anyio.create_task_group() as group:

            async def work() -> None:
                await serve(options(for_ever), Keys(), client, stop=stop)

            group.start_soon(work)
            await again(server)
            await Engine(client, Keys()).joined()
            stop.set()
    finally:
        await client.close()
        server.stop()


async def test_a_worker_asked_to_stop_while_redis_is_away_stops(
    own: RedisServer, there: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.worker.service._LAST_WORDS_S", 0.3)
    with anyio.fail_after(10):
        async with working(there, Keys(), options(for_ever)) as engine:
            await engine.dispatch("t1")
            await engine.report("task.started", "t1")
            own.kill9()


async def test_a_report_that_a_full_redis_refuses_is_sent_again(
    own: RedisServer, there: Client, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = anyio.Event()

    async def handle(task: Task) -> str:
        await go_on.wait()
        return "x"

    async with working(there, Keys(), options(handle)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        await there.call("CONFIG", "SET", "maxmemory", "1")
        go_on.set()
        await wait_until(lambda: "a report waits" in caplog.text)
        assert await engine.reports("task.completed") == []
        await there.call("CONFIG", "SET", "maxmemory", "0")
        await engine.report("task.completed", "t1")


async def test_what_was_acknowledged_before_an_outage_is_looked_for_though_others_met_it(
    own: RedisServer, there: Client
) -> None:
    """Whoever sends next after a lost connection may notice nothing of it."""
    outbox = Outbox(there, Keys().main_intake)
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        outbox.add(("task.progress", b"{}"))
        await outbox.drained()
        before = outbox.last_acked
        own.restart()
        with contextlib.suppress(RedisUnavailable):
            await there.call("PING")
        outbox.add(("task.progress", b"{}"))
        await outbox.drained()
        assert (outbox.last_acked, outbox.away) == (before, True)
        outbox.back(there.losses)
        outbox.add(("task.progress", b"{}"))
        await outbox.drained()
        assert outbox.last_acked > before
        outbox.close()
