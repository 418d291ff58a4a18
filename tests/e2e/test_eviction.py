"""A Redis that may drop keys carries no bus: what users start says so and ends."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.cli import asb
from tests.servers import RedisServer


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
