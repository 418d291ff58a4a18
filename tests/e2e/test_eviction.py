"""A Redis that may drop keys carries no bus: what users start says so and ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from services.store.client import SyncClient
from tests.e2e.cli import ASB, asb, environment
from tests.servers import RedisServer
from tests.subscribers import subscriber
from tests.wait import wait_blocking


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
@pytest.mark.parametrize("command", [("up",), ("service", "engine"), ("service", "inbox")])
def test_nothing_starts_on_a_redis_that_may_evict(
    redis: RedisServer, tmp_path: Path, command: tuple[str, ...], policy: str
) -> None:
    redis.call("CONFIG", "SET", "maxmemory-policy", policy)
    done = asb(*command, f"--redis={redis.url}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"may evict keys, the log among them: maxmemory-policy is {policy}" in done.stderr
    assert "hint: redis-cli CONFIG SET maxmemory-policy noeviction" in done.stderr
    assert redis.call("DBSIZE") == 0


# -- while a bus runs --------------------------------------------------------------------------


@pytest.fixture
def up(redis: RedisServer, tmp_path: Path) -> Generator[subprocess.Popen[bytes]]:
    """``asb up`` on that Redis."""
    log = tmp_path / "up.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*ASB, "up", f"--redis={redis.url}"], cwd=tmp_path, env=environment(),
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    wait_blocking(lambda: "asb is up" in log.read_text(), within=30, what="asb is up")
    yield process
    process.terminate()
    process.wait(timeout=30)


def types(redis: RedisServer) -> list[str]:
    """The types of the events about eviction, in order."""
    entries = redis.call("XRANGE", "asb:events", "-", "+")
    found = [fields[1].decode() for _, fields in entries]
    return [name for name in found if name.startswith("redis.")]


def doctor(redis: RedisServer, folder: Path) -> dict[str, str]:
    done = asb("doctor", "--json", f"--redis={redis.url}", cwd=folder)
    return {row["name"]: row["verdict"] for row in json.loads(done.stdout)["checks"]}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("up")
def test_a_policy_that_is_changed_later_is_one_alert_until_mended(
    redis: RedisServer, tmp_path: Path
) -> None:
    with contextlib.closing(subscriber(redis.url)) as pubsub:
        pubsub.subscribe("asb:alerts")
        redis.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        wait_blocking(lambda: types(redis) == ["redis.evicts"], within=30, what="it is said")
        alerts: list[dict[str, object]] = []

        def heard() -> bool:
            got = pubsub.get_message(timeout=0.2)
            if got and got["type"] == "message":
                alerts.append(json.loads(got["data"]))
            return any(alert["type"] == "REDIS_EVICTS" for alert in alerts)

        wait_blocking(heard, within=30, what="the alert is published")
    assert "may evict keys" in (tmp_path / "up.log").read_text()
    assert doctor(redis, tmp_path)["memory"] == "bad"
    shown = asb("alerts", f"--redis={redis.url}", cwd=tmp_path).stdout
    assert "redis.evicts: maxmemory-policy volatile-lru, 0 keys dropped" in shown
    redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    wait_blocking(lambda: len(types(redis)) > 1, within=30, what="that is over")
    assert types(redis) == ["redis.evicts", "redis.keeps"]
    assert doctor(redis, tmp_path)["memory"] == "ok"


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("up")
def test_keys_that_were_dropped_between_two_looks_are_told_of(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Somebody turned eviction on, filled the memory, and turned it off again, in one moment."""
    used = int(redis.call("INFO", "memory").split(b"used_memory:")[1].split()[0])
    with contextlib.closing(SyncClient(redis.url)) as client:
        client.pipeline(
            [
                ("CONFIG", "SET", "maxmemory-policy", "volatile-lru"),
                ("CONFIG", "SET", "maxmemory", used + 300_000),
                *(("SET", f"cache:{n}", "v" * 50_000, "EX", 600) for n in range(20)),
                ("CONFIG", "SET", "maxmemory", 0),
                ("CONFIG", "SET", "maxmemory-policy", "noeviction"),
            ]
        )
    wait_blocking(lambda: len(types(redis)) > 1, within=30, what="it is said, and mended")
    assert types(redis) == ["redis.evicts", "redis.keeps"]
    assert doctor(redis, tmp_path)["evicted keys"] == "warn"
