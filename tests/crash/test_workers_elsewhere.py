"""Workers and redis-cli agents on other machines, whose clocks are 30 s and 10 min off, and whose
cable is pulled for longer than a lease.

Everything runs as users start it; each machine has a network, processes and a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from events.envelope import Event
from events.keys import Keys
from services.store import rebuild
from services.store.client import SyncClient
from tests.budget.ground import audit_of, raw_log
from tests.conservation import conserved_over_http
from tests.e2e.cli import ASB, ROOT, asb, environment
from tests.hosts import ElsewhereHost
from tests.integration.test_engine_ground import settings_for
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

KEYS = Keys()
SOON_S = 60
LEASE_S = 6
SETTINGS = {
    "ASB_TASKS_LEASE_S": str(LEASE_S),
    "ASB_TASKS_HEARTBEAT_S": "1",
    "ASB_METRICS_ENABLED": "false",
    "ASB_WEB_ENABLED": "false",
}
SCRIPT = ROOT / "ops" / "examples" / "shell-worker.sh"
# It writes down who works on what, again and again, until the file "go" is there.
AGENT = """
import os, select, sys, time
text = sys.stdin.read()
while "slow" in text and not os.path.exists("go"):
    with open("at-work", "a") as file:
        file.write(f"{time.monotonic()} {os.environ['ASB_WORKER']}\\n")
    select.select([], [], [], 0.05)  # libfaketime breaks time.sleep
print("did", text)
"""


class Ground:
    """A Redis and an engine here, and two machines elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.east, self.west = ElsewhereHost("east", "+30s"), ElsewhereHost("west", "-10m")
        addresses = ("127.0.0.1", self.east.address, self.west.address)
        options = ("--bind", *addresses, "--protected-mode", "no")
        self.server = RedisServer(folder / "redis", options=options).start()
        (folder / "agent.py").write_text(AGENT)
        with (folder / "up.log").open("wb") as log:
            self._engine = subprocess.Popen(
                [*ASB, "up", f"--redis={self.server.url}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env={**environment(), **SETTINGS}, start_new_session=True,
            )  # fmt: skip

    def url(self, host: ElsewhereHost) -> str:
        return f"redis://{host.address}:{self.server.port}/0"

    def worker(self, host: ElsewhereHost, name: str) -> subprocess.Popen[bytes]:
        """`asb worker` on that machine."""
        command = [
            *(*ASB, "worker", name, f"--redis={self.url(host)}"),
            *("--", sys.executable, str(self.folder / "agent.py")),
        ]
        return host.start(command, self.folder / f"{name}.log", {**environment(), **SETTINGS})

    def asb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return asb(arguments[0], f"--redis={self.server.url}", *arguments[1:], cwd=self.folder)

    def submit(self, *texts: str, **fields: Any) -> list[str]:
        """Tasks; their ids."""
        data = (json.dumps({"text": text, **fields}) for text in texts)
        call, kind = self.server.call, ("type", "task.submitted")
        return [call("XADD", KEYS.main_intake, "*", *kind, "data", x).decode() for x in data]

    def events(self, *kinds: str) -> list[Event]:
        with contextlib.closing(SyncClient(self.server.url)) as client:
            found = [e for events in rebuild.read_log(client, KEYS) for e in events]
        return [e for e in found if e.type in kinds]

    def until(self, kind: str, task: str = "", **fields: Any) -> Event:
        """Wait for an event of this kind and with these fields."""

        def found() -> list[Event]:
            wanted = {**({"task": task} if task else {}), **fields}
            return [
                event
                for event in self.events(kind)
                if all(getattr(event.data, name) == value for name, value in wanted.items())
            ]

        return wait_blocking(found, SOON_S, f"{kind} of {task or fields}")[0]

    def at_work(self) -> list[tuple[float, str]]:
        """When (monotonic, s) which worker's agent was at work."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "at-work").read_text().splitlines()
            return [(float(at), name) for at, name in (line.split() for line in lines)]
        return []

    def proven(self) -> None:
        """Nothing ended twice, no promise is broken, every sum is conserved."""
        ends = Counter(e.data.task for e in self.events("task.completed") if not e.data.stale)
        assert set(ends.values()) == {1}
        audit = audit_of(raw_log(self.server.url, KEYS.log))
        assert audit.findings == []
        conserved_over_http(self.server.url, settings_for("asb"))

    def end(self) -> None:
        self.east.end()
        self.west.end()
        os.killpg(self._engine.pid, signal.SIGKILL)
        self._engine.wait()
        self.server.stop()


@pytest.fixture
def ground(tmp_path: Path) -> Generator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.end()


def test_clocks_that_differ_move_neither_leases_nor_deadlines(ground: Ground) -> None:
    for name, host in (("w1", ground.east), ("w2", ground.west)):
        ground.worker(host, name)
        ground.until("worker.joined", worker=name)
    tasks = ground.submit(*(f"fix {n}" for n in range(20)))
    late = [
        ground.submit("slow", worker=name, timeout_s=4, max_attempts=1)[0] for name in ("w1", "w2")
    ]
    for task in tasks:
        ground.until("task.completed", task)
    for task in late:
        begun, ended = ground.until("task.dispatched", task), ground.until("task.failed", task)
        assert 3_000_000 < ended.at - begun.at < 4_000_000 * 4
    assert {e.data.worker for e in ground.events("task.dispatched")} == {"w1", "w2"}
    assert ground.events("worker.lost", "clock.stepped") == []
    ground.proven()


def test_a_worker_that_is_cut_off_stops_before_its_task_is_given_out_again(
    ground: Ground,
) -> None:
    ground.worker(ground.east, "w1")
    ground.until("worker.joined", worker="w1")
    [task] = ground.submit("a slow one")
    ground.until("task.started", task)
    wait_blocking(ground.at_work, SOON_S, "its agent is at work")
    ground.worker(ground.west, "w2")
    ground.until("worker.joined", worker="w2")
    ground.east.pull()
    ground.until("worker.lost", worker="w1")
    again = ground.until("task.dispatched", task, attempt=2)
    assert again.data.worker == "w2"
    wait_blocking(lambda: ground.at_work()[-1][1] == "w2", SOON_S, "the other one's agent works")
    time_of = {name: [at for at, who in ground.at_work() if who == name] for name in ("w1", "w2")}
    assert max(time_of["w1"]) < min(time_of["w2"])  # never two of them at once
    # The cable stays out for another lease; then it is back under its name, and works.
    pulled = time.monotonic()
    wait_blocking(lambda: time.monotonic() - pulled > LEASE_S, SOON_S)
    ground.east.plug()
    wait_blocking(
        lambda: len([e for e in ground.events("worker.joined") if e.data.worker == "w1"]) == 2,
        SOON_S,
        "it has joined again",
    )
    (ground.folder / "go").touch()
    ground.until("task.completed", task)
    [more] = ground.submit("fix it", worker="w1")
    ground.until("task.completed", more)
    assert max(at for at, who in ground.at_work() if who == "w1") == max(time_of["w1"])
    ground.proven()


def test_a_pulled_cable_that_is_back_within_the_lease_costs_nobody_the_task(
    ground: Ground,
) -> None:
    ground.worker(ground.west, "w1")
    ground.until("worker.joined", worker="w1")
    [task] = ground.submit("a slow one")
    wait_blocking(ground.at_work, SOON_S, "its agent is at work")
    ground.west.pull()
    pulled = time.monotonic()
    wait_blocking(lambda: time.monotonic() - pulled > LEASE_S / 4, SOON_S)
    ground.west.plug()
    (ground.folder / "go").touch()
    ended = ground.until("task.completed", task)
    assert (ended.data.attempt, ground.events("worker.lost")) == (1, [])
    ground.proven()


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli")
def test_an_agent_with_nothing_but_redis_cli_works_from_elsewhere(ground: Ground) -> None:
    command = ["sh", str(SCRIPT), "sh1", "sh", "-c", "cat; echo '{\"input_tokens\": 7}' >&3"]
    variables = {**environment(), "ASB_REDIS_URL": ground.url(ground.west)}
    ground.west.start(command, ground.folder / "sh1.log", variables, shifted=False)
    ground.until("worker.joined", worker="sh1")
    tasks = ground.submit("one", "two", worker="sh1")
    ends = [ground.until("task.completed", task) for task in tasks]
    assert [end.data.charged.tokens for end in ends] == [7, 7]
    report = json.dumps({"agent": "codex", "total_tokens": 5})
    tell = ["redis-cli", "-u", ground.url(ground.east), "XADD", "asb:intake", "*"]
    ground.east.start(
        [*tell, "type", "usage.recorded", "data", report],
        ground.folder / "usage.log", environment(), shifted=False,
    )  # fmt: skip
    assert ground.until("usage.recorded", agent="codex").data.charged.tokens == 5
    ground.proven()
