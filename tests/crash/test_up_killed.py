"""kill -9 of what `asb up` runs, in pairs and all at once, as users start it.

The workers' names and tasks come back within seconds, and nothing of what ran before goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from services.store.client import SyncClient
from tests.conservation import conserved_over_http
from tests.e2e.cli import Up
from tests.integration.test_engine_ground import settings_for
from tests.integration.test_worker_command import alive
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

PROVE = os.environ.get("ASB_TEST_PROVE") == "1"
ROUNDS = 10 if PROVE else 1
WORKERS = 3
LEASE_S = 60  # the default
NAMES = [f"worker{n}" for n in range(1, WORKERS + 1)]
# Its own pid, that of a child, and that of a grandchild in a session of its own; then it waits.
AGENT = """
cat > /dev/null
echo $$ >> "$0.ran"
bash -c 'echo $$ >> "$0"; while :; do sleep 600; done' "$0.ran" &
(setsid bash -c 'echo $$ >> "$0"; while :; do sleep 600; done' "$0.ran" &)
while ! [ -e "$0.go" ]; do sleep 0.1; done
"""


class Killed(Up):
    """A bus whose processes are killed."""

    def __init__(self, folder: Path) -> None:
        self.agent = folder / "agent.sh"
        self.agent.write_text(AGENT)
        super().__init__(folder, f"--workers={WORKERS}", "--", "bash", str(self.agent))

    @property
    def ran(self) -> list[int]:
        """Processes that agents have told of."""
        with contextlib.suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"{self.agent}.ran").read_text().split()]
        return []

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The data of all events of these types."""
        types = (f"--type={kind}" for kind in kinds)
        done = self.run("events", "--json", "--since=0-0", "--limit=100000", *types)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["data"] for line in done.stdout.splitlines()]

    def kill9(self, *words: str) -> int:
        """Kill every process of ours with one of ``words`` in its command line (or Redis), in one
        go; how many."""
        found = [pid for pid in pids_of(self.folder) if any(w in command(pid) for w in words)]
        if REDIS in words:
            with contextlib.closing(SyncClient(self.url)) as client:
                said = re.search(rb"process_id:(\d+)", client.call("INFO", "server"))
            assert said is not None
            found.append(int(said[1]))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None and self.process.pid in found:
            self.process.wait(timeout=20)
            self.process = None
        return len(found)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def pids_of(folder: Path) -> list[int]:
    """Living processes that name the folder in their command line."""
    every = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in every if str(folder) in command(pid) and pid != os.getpid()]


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Killed]:
    made = Killed(tmp_path)
    yield made
    made.end()
    for pid in pids_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


UP, WORKER, SUPERVISOR, REDIS = ".main up ", ".main worker ", "supervisor.py ", "Redis"


@pytest.mark.parametrize(
    ("words", "kills_a_round"),
    [
        pytest.param((WORKER,), 3, id="workers"),
        pytest.param((WORKER, SUPERVISOR), 6, id="workers and supervisors"),
        pytest.param((UP, WORKER), 4, id="asb up and workers"),
        pytest.param((UP, REDIS), 2, id="asb up and Redis"),
        pytest.param((UP, WORKER, SUPERVISOR, REDIS), 8, id="everything but the agents"),
    ],
)
def test_names_and_tasks_are_back_in_seconds_and_what_ran_before_is_gone(
    bus: Killed, words: tuple[str, ...], kills_a_round: int
) -> None:
    bus.start()
    done = bus.run("submit", "--max-attempts=99", *(f"task {n}" for n in range(WORKERS)))
    assert done.returncode == 0, done.stderr
    kills, slowest, began = 0, 0.0, 0.0
    for n in range(ROUNDS + 1):
        wait_blocking(lambda n=n: len(bus.ran) == 3 * WORKERS * (n + 1), within=90, what="agents")
        if n:
            slowest = max(slowest, time.monotonic() - began)
            wait_blocking(lambda: not alive(bus.ran[: -3 * WORKERS]), within=30, what="old agents")
        assert len(alive(bus.ran)) == 3 * WORKERS
        if n < ROUNDS:
            kills += bus.kill9(*words)
            began = time.monotonic()
            if bus.process is None:
                bus.start()
    Path(f"{bus.agent}.go").touch()
    wait_blocking(lambda: len(bus.events("task.completed")) == WORKERS, within=60)
    assert bus.events("worker.refused") == []
    assert sorted({event["worker"] for event in bus.events("worker.joined")}) == NAMES
    assert kills == ROUNDS * kills_a_round
    assert slowest < LEASE_S / 2, "no lease had to end"
    conserved_over_http(bus.url, settings_for("asb"))
    print(  # noqa: T201
        f"\n  {' '.join(words)}: {kills} kills in {ROUNDS} rounds, "
        f"{3 * WORKERS * ROUNDS} processes of agents ended, slowest restart {slowest:.1f} s"
    )
