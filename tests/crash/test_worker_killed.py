"""kill -9 of a worker process: what it ran is gone with it, and the next session is a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from events.keys import Keys
from services.store.client import Client
from tests.integration.test_worker_command import WILD, alive, written
from tests.integration.test_worker_session import Engine
from tests.wait import wait_blocking, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.crash]

PROGRAM = """
import os, sys, anyio
from events.keys import Keys
from services.store.client import Client
from services.worker import WorkerOptions, serve
from services.worker.drivers.command import CommandDriver

async def main():
    url, namespace, *command = sys.argv[1:]
    driver = CommandDriver(command, kill_grace_s=0.2)
    lease = int(os.environ["LEASE_S"])
    options = WorkerOptions(
        name="w1", driver=driver, capacity=8, lease_s=lease, heartbeat_s=lease / 6
    )
    await serve(options, Keys(namespace), Client(url))

anyio.run(main)
"""
RUNS = 5


class Workers:
    """Worker processes of a test, none of which may outlive it."""

    def __init__(self, url: str, namespace: str, pids: Path) -> None:
        self._command = [sys.executable, "-c", PROGRAM, url, namespace]
        self._command += ["bash", "-c", WILD + "while :; do sleep 600; done", "bash"]
        self._command += [f"{pids}-{{prompt}}"]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, lease_s: int = 60) -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[2]
        env = {**os.environ, "LEASE_S": str(lease_s)}
        process = subprocess.Popen(self._command, cwd=root, env=env)
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(timeout=10)


@pytest.fixture
def workers(redis_url: str, namespace: str, tmp_path: Path) -> Generator[Workers]:
    made = Workers(redis_url, namespace, tmp_path / "pids")
    yield made
    made.end()


async def test_kill_9_of_the_worker_ends_all_it_ran(
    client: Client, keys: Keys, workers: Workers, tmp_path: Path
) -> None:
    engine = Engine(client, keys)
    ended = 0
    for turn in range(3):
        process = workers.start()
        await engine.joined(turn + 1)
        files = [tmp_path / f"pids-{turn}.{n}" for n in range(RUNS)]
        for file in files:
            await engine.dispatch(f"t{file.name}", file.name.removeprefix("pids-"))
        for file in files:
            await wait_until(lambda file=file: written(file), within=15)
        found = [pid for file in files for pid in written(file)]
        assert len(alive(found)) == 3 * RUNS  # a kill with nothing in flight would prove nothing
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        await wait_until(lambda found=found: not alive(found), within=10)
        ended += len(found)
    print(f"\nkill -9 of the worker: 3 kills, {3 * RUNS} tasks in flight, {ended} processes ended")  # noqa: T201


async def test_what_a_frozen_worker_ran_is_gone_before_its_lease_ends(
    client: Client, keys: Keys, workers: Workers, tmp_path: Path
) -> None:
    engine = Engine(client, keys)
    process = workers.start(lease_s=3)
    await engine.joined()
    await engine.dispatch("t1", "frozen")
    found = await wait_until(lambda: written(tmp_path / "pids-frozen"), within=15)
    process.send_signal(signal.SIGSTOP)
    assert len(alive(found)) == 3
    wait_blocking(lambda: not alive(found), within=3)
    process.send_signal(signal.SIGCONT)
    said = await engine.report("task.failed", "t1")
    assert said["retryable"] is True
    await engine.joined(2)
