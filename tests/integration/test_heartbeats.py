"""Every service has a heartbeat, and one that is missing is named, on users' command lines."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.assembly import DECIDERS, SERVICES
from services.queries.missing import missing_names
from services.store.client import Client, SyncClient
from services.store.heartbeat import DECIDES, KEPT_S, Beat, Heartbeat, Role, beats
from tests.e2e.cli import Process, asb
from tests.servers import RedisServer
from tests.wait import wait_blocking, wait_until

pytestmark = [pytest.mark.timeout(600)]


class Ground:
    """A server of the test's own, and what asb says of the bus on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = RedisServer(folder / "redis").start()
        self.redis = f"--redis={self.server.url}"
        self._running: list[Process] = []

    def service(self, *names: str) -> Process:
        started = Process(self.folder, "service", *names, self.redis).says("Ctrl-C stops")
        self._running.append(started)
        return started

    def asb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return asb(arguments[0], self.redis, *arguments[1:], cwd=self.folder)

    def doctor(self) -> dict[str, tuple[str, str, str]]:
        """Rows of ``asb doctor`` by name: verdict, value, hint. The worst of each name."""
        checks: list[dict[str, str]] = json.loads(self.asb("doctor", "--json").stdout)["checks"]
        checks.sort(key=lambda check: ("ok", "warn", "bad").index(check["verdict"]))
        return {c["name"]: (c["verdict"], c["value"], c["hint"]) for c in checks}

    def missing(self) -> set[str]:
        with contextlib.closing(SyncClient(self.server.url)) as client:
            return set(missing_names(beats(client, Keys())))

    def end(self) -> None:
        for process in self._running:
            process.end()
        self.server.stop()


@pytest.fixture
def ground(tmp_path: Path) -> Generator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.end()


def test_a_missing_dispatcher_is_named_by_doctor_status_and_tasks(ground: Ground) -> None:
    """Given all services but the dispatcher, when a task waits, then nobody says "number 1 in the
    queue" or that all is well; once one is started, all are content."""
    ground.service(*(name for name in SERVICES if name != "dispatcher"))
    wait_blocking(lambda: ground.missing() == {"dispatcher"}, within=60)
    task = ground.asb("submit", "Write a guide").stdout.strip()
    assert task
    found = ground.asb("doctor")
    verdict, value, hint = ground.doctor()["services"]
    assert (found.returncode, verdict) == (1, "bad")
    assert value == "no dispatcher runs: no task is given out"
    assert "asb service dispatcher" in hint
    assert "no dispatcher runs" in ground.asb("status").stderr
    assert json.loads(ground.asb("status", "--json").stdout)["missing_services"] == ["dispatcher"]
    [row] = json.loads(ground.asb("tasks", "--waiting", "--json").stdout)
    assert "no dispatcher runs" in row["waiting"]
    assert "no dispatcher runs" in ground.asb("task", task).stdout

    ground.service("dispatcher")
    wait_blocking(lambda: not ground.missing(), within=60)
    assert ground.doctor()["services"][0] == "ok"
    assert ground.asb("status").stderr == ""
    [row] = json.loads(ground.asb("tasks", "--waiting", "--json").stdout)
    assert "no live worker" in row["waiting"]


def test_a_bus_that_nobody_runs_is_no_healthy_bus(ground: Ground) -> None:
    """Given a Redis alone and nothing that waits, then doctor does not say that all is well."""
    found = ground.asb("doctor")
    assert found.returncode == 1
    assert "no engine runs" in found.stdout
    assert "no engine runs" in ground.asb("status").stderr


def test_a_standby_masks_nobody_and_a_killed_process_is_missed(ground: Ground) -> None:
    """Given two engines, each with heartbeats of its own, when one is killed then its are gone
    within their time; when the other ends in order, then its are gone at once."""
    first, second = ground.service("engine"), ground.service("engine", "inbox")
    with contextlib.closing(SyncClient(ground.server.url)) as client:

        def processes(service: str) -> set[str]:
            return {b.process for b in beats(client, Keys()) if b.service == service}

        wait_blocking(lambda: len(processes("intake")) == 2, within=60, what="both")
        figures = [b.figures for b in beats(client, Keys()) if b.service == "intake"]
        for name in ("turns", "events", "conflicts", "refused", "rebuilds", "outages", "log_id"):
            assert all(name in f for f in figures), name
        first.stop(signal.SIGKILL)
        wait_blocking(lambda: len(processes("intake")) == 1, within=KEPT_S + 60, what="it expires")
        assert len(processes("inbox")) == 1
        assert second.stop() == 0
        assert processes("intake") == set()


@pytest.mark.anyio
async def test_a_heartbeat_from_before_the_clock_went_back_proves_nothing(
    redis_url: str, namespace: str
) -> None:
    """Given heartbeats of a process that is gone, when the server's clock steps back so that they
    live on for long, then they do not count; a living process writes its own anew."""
    keys, client = Keys(namespace), Client(redis_url)
    heartbeat = Heartbeat(client, keys, [Role(name, DECIDES) for name in DECIDERS])
    await heartbeat.beat({"turns": 1})
    with contextlib.closing(SyncClient(redis_url)) as reader:
        found = beats(reader, keys)
        assert [b.service for b in found] == sorted(DECIDERS)
        for service in DECIDERS:  # as a clock that went back by a day leaves it
            await client.call("EXPIRE", keys.service(service, heartbeat.process), 86_400)
        assert beats(reader, keys) == []
        await heartbeat.beat({"turns": 2})
        assert {b.figures["turns"] for b in beats(reader, keys)} == {"2"}
    await client.close()


@pytest.mark.anyio
async def test_wrong_types_under_heartbeat_keys_give_way(redis_url: str, namespace: str) -> None:
    keys, client = Keys(namespace), Client(redis_url)
    heartbeat = Heartbeat(client, keys, [Role("intake", DECIDES)])
    await client.call("SET", keys.services, "somebody's")
    await client.call("SET", keys.service("intake", heartbeat.process), "somebody's")
    with contextlib.closing(SyncClient(redis_url)) as reader:
        assert beats(reader, keys) == []

        async def seen() -> list[Beat]:
            await heartbeat.beat({})
            return beats(reader, keys)

        assert await wait_until(seen, what="a heartbeat")
    await client.close()


@pytest.mark.anyio
async def test_processes_that_are_gone_leave_the_index(redis_url: str, namespace: str) -> None:
    keys, client = Keys(namespace), Client(redis_url)
    await client.call("HSET", keys.services, "intake:long-gone", 1)
    heartbeat = Heartbeat(client, keys, [Role("intake", DECIDES)])
    await heartbeat.beat({})
    named: list[Any] = await client.call("HKEYS", keys.services)
    assert named == [f"intake:{heartbeat.process}".encode()]
    await heartbeat.end()
    assert await client.call("HKEYS", keys.services) == []
    await client.close()
