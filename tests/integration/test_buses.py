"""Several buses on one server: each by itself, and all of them on one screen."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import anyio
import pytest

from tests.e2e.cli import asb
from tests.integration.test_engine_ground import Bus, running
from tests.servers import RedisServer
from tests.wait import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """Two buses with a task each, one that lost its beginning, and what is no bus."""
    made = RedisServer(tmp_path_factory.mktemp("buses")).start()

    async def fill() -> None:
        for namespace in ("north", "south", "west"):
            bus = Bus(made.url, namespace)
            async with running(bus.host("intake", "delegator")):
                await bus.submit("Write it")
                await wait_until(lambda bus=bus: bus.events("task.delegated"))
            await bus.close()

    anyio.run(fill)
    made.call("XTRIM", "west:events", "MAXLEN", 1)
    made.call("XADD", "foreign:events", "*", "type", "x", "data", "{}")
    made.call("XADD", "a*b:events", "*", "type", "x", "data", "{}")
    made.call("SET", "plain:events", "x")
    yield made
    made.stop()


def test_every_bus_of_a_server_has_a_line(server: RedisServer, tmp_path: Path) -> None:
    command = ("status", f"--redis={server.url}", "--all-namespaces")
    shown = asb(*command, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAMESPACE", "north", "south", "west"]
    assert [line.split()[1:4] for line in lines[1:3]] == [["1", "0", "0"]] * 2
    rows = json.loads(asb(*command, "--json", cwd=tmp_path).stdout)
    assert [row["waiting"] for row in rows if not row["problem"]] == [1, 1]
    assert "beginning" in rows[2]["problem"]


def test_a_server_without_a_bus_says_so(tmp_path: Path) -> None:
    empty = RedisServer(tmp_path / "empty").start()
    shown = asb("status", f"--redis={empty.url}", "--all-namespaces", cwd=tmp_path)
    empty.stop()
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "no bus has begun" in shown.stderr
