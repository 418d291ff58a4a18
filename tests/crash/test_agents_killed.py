"""kill -9 of worker, supervisor, agent and Redis, in every pair, while an agent works.

Nothing is lost, nothing runs twice unseen, no hold is left, and no process outlives its supervisor
but until the worker's next start. What a killed attempt used is healed by its transcript.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from events.keys import Keys
from projections.records import COMPLETED
from projections.state import State
from services.runtime.errors import RedisUnavailable
from services.store import rebuild
from services.store.client import SyncClient
from services.worker.identity import stat
from tests.agents.playing import Stage
from tests.conservation import conserved_over_http
from tests.e2e.cli import Up
from tests.integration.test_agents import children
from tests.integration.test_engine_ground import settings_for
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

KILLED = ("worker", "supervisor", "agent", "Redis")
TRANSCRIPT = 300  # counted tokens of two calls
DRIVER = 150  # of one, which a run that ends well tells


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


class Bus(Up):
    """A bus with one worker, whose Claude Code is the scripted agent."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        (folder / "asb.toml").write_text("[tasks]\nbackoff_s = 1\n")
        super().__init__(folder, "--workers=1", "--driver=claude")
        self.stage = stage
        self.redis = ""  # while it is down its address stands nowhere

    def state(self) -> State:
        with contextlib.closing(SyncClient(self.redis)) as client:
            return rebuild.rebuild(client, Keys())

    def count(self, kind: str) -> int:
        return self.state().tallies.events.get(kind, 0)

    def tree(self, starts: int) -> dict[str, int]:
        """The processes at work on the newest task, once its child runs, too."""

        def look() -> dict[str, int]:
            known = self.stage.starts()
            if len(known) < starts or not children(known[-1]["pid"]):
                return {}
            agent = known[-1]["pid"]
            supervisor = parent(agent)
            return {"agent": agent, "supervisor": supervisor, "worker": parent(supervisor),
                    "child": children(agent)[0], "Redis": self._redis()}  # fmt: skip

        return wait_blocking(look, within=60, what=f"start {starts}; {self.said}")

    def _redis(self) -> int:
        with contextlib.closing(SyncClient(self.redis)) as client:
            said = re.search(rb"process_id:(\d+)", client.call("INFO", "server"))
        assert said is not None
        return int(said[1])

    def is_done(self, task: str) -> bool:
        try:
            outcome = self.state().outcomes.get(task)
        except RedisUnavailable:
            return False
        return outcome is not None and outcome.status == COMPLETED


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Bus]:
    stage = Stage(tmp_path)
    for name, value in {**stage.environment, "CLAUDE_CONFIG_DIR": str(tmp_path / "c")}.items():
        monkeypatch.setenv(name, value)
    made = Bus(tmp_path, stage)
    try:
        made.start()
        made.redis = made.url
        yield made
    finally:
        made.end()


def is_gone(pid: int) -> bool:
    return stat(pid)[0] in ("", "Z", "X")


def test_any_two_are_killed_at_once(bus: Bus) -> None:
    pairs = list(itertools.combinations(KILLED, 2))
    for n, pair in enumerate(pairs):
        text = f"play silent child once transcript 2 number {n}"
        task = bus.run("submit", text).stdout.strip()
        tree = bus.tree(2 * n + 1)
        live = n + 1  # its stream has told something
        wait_blocking(lambda live=live: bus.count("usage.recorded") >= live, within=30)
        for sign in (signal.SIGSTOP, signal.SIGKILL):  # so that neither sees the other go
            for name in pair:
                with contextlib.suppress(ProcessLookupError):  # it goes with the other
                    os.kill(tree[name], sign)
        wait_blocking(lambda task=task: bus.is_done(task), within=60, what=f"{pair}; {bus.said}")
        old = [tree[name] for name in ("agent", "child", *set(pair) - {"Redis"})]
        wait_blocking(lambda old=old: all(map(is_gone, old)), within=20, what=f"{pair}: {old}")
        assert len(bus.stage.starts()) == 2 * (n + 1), f"{pair}: run twice unseen"
    assert bus.count("task.dispatched") == len(bus.stage.starts()) == 2 * len(pairs)
    assert bus.count("task.completed") == len(pairs)
    held = bus.state().scopes["global"]
    assert (held.held_tokens, held.held_nanos, held.held_tasks) == (0, 0, 0)
    conserved_over_http(bus.redis, settings_for("asb"))

    said = json.loads(bus.run("usage", "reconcile", "--all", "--json").stdout)
    assert len(said) == 2 * len(pairs)
    first = [row for row in said if row["attempt"] == 1]
    assert {row["outcome"] for row in first} <= {"healed", "agrees"}
    again = json.loads(bus.run("usage", "reconcile", "--all", "--json").stdout)
    assert not [row for row in again if row["outcome"] == "healed"]
    assert {row["charged"] for row in again if row["attempt"] == 1} == {TRANSCRIPT}
    assert {row["charged"] for row in again if row["attempt"] == 2} == {DRIVER}
    total = bus.ask("metrics")["total"]
    assert total["tokens"] == len(pairs) * (TRANSCRIPT + DRIVER)
    assert bus.run("replay", "--verify").returncode == 0
