"""Kill -9 of the manager, the bus, its Redis, tmux with all agents, an agent, a worker: singly, in
pairs, all at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from services.store.client import SyncClient
from services.worker.tmux import kept
from tests.agents.resident import COUNTED
from tests.agents.terminals import SESSION, Terminal, agent_state, terminal
from tests.crash.test_up_killed import command, pids_of
from tests.e2e.cli import ROOT, Process, Up, environment
from tests.wait import wait_blocking

__all__ = ["terminal"]
RECOVERED_S = 60.0


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Fleet:
    """A bus whose workers have their agents in tmux, and what of it can be killed."""

    def __init__(self, terminal: Terminal, workers: int) -> None:
        self.terminal, self.workers = terminal, workers
        self.up = Up(terminal.folder, f"--workers={workers}", "--driver=tmux", "--restart")
        self.tasks: list[str] = []
        self.manager: subprocess.Popen[str] | None = None

    def server(self) -> list[int]:
        shown = self.terminal.tmux("display-message", "-p", "#{pid}")
        return [int(shown)] if shown.strip() else []

    def agents(self) -> list[int]:
        folder = self.terminal.folder / "settings" / "sessions"
        pids = [int(path.stem) for path in folder.glob("*.json")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def redis(self) -> list[int]:
        with contextlib.closing(SyncClient(self.up.url)) as client:
            info: bytes = client.call("INFO", "server")
        return [int(info.partition(b"process_id:")[2].split()[0])]

    def worker_processes(self) -> list[int]:
        mine = pids_of(self.terminal.folder)
        return [pid for pid in mine if " worker worker1 " in command(pid)][:1]

    @property
    def parts(self) -> dict[str, Callable[[], list[int]]]:
        return {
            "manager": lambda: [self.manager.pid] if self.manager else [],
            "bus": lambda: [self.up.process.pid] if self.up.process else [],
            "redis": self.redis,
            "worker": self.worker_processes,
            "tmux": self.server,
            "agent": lambda: self.agents()[:1],
        }

    def kill(self, *names: str) -> None:
        kill([pid for name in names for pid in self.parts[name]()])
        if "bus" in names and self.up.process is not None:
            self.up.process.wait()

    def started(self) -> None:
        """Until a bus runs with all of its workers."""
        self.up.start()
        wait_blocking(self.all_here, within=RECOVERED_S, what="all workers are here")

    def all_here(self) -> bool:
        done = self.up.run("status", "--json")
        if done.returncode:
            return False
        workers: list[dict[str, Any]] = json.loads(done.stdout)["workers"]
        states = [agent_state(w) for w in workers if w["status"] != "LOST"]
        return len(states) == self.workers and not {"", "dead", "unknown"} & set(states)

    def submit(self, number: int) -> None:
        texts = [f"play slow number {len(self.tasks) + n}" for n in range(number)]
        done = self.up.run("submit", *texts)
        assert done.returncode == 0, done.stderr
        self.tasks += done.stdout.split()

    def manage(self, number: int) -> None:
        """The same by the manager's prompt, which then looks after them for as long as it lives."""
        program = ROOT / "concurrent_task_manager.py"
        self.manager = subprocess.Popen(
            [sys.executable, str(program), f"--data-dir={self.up.data}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=self.terminal.folder, env=environment(),
        )  # fmt: skip
        assert self.manager.stdin is not None
        assert self.manager.stdout is not None
        for n in range(number):
            self.manager.stdin.write(f"add play slow number {n}\n")
            self.manager.stdin.flush()
            added = self.manager.stdout.readline()
            assert added.startswith("Added "), added
            self.tasks.append(added.split()[1])
        self.manager.stdin.write("auto\n")
        self.manager.stdin.flush()

    def end(self) -> None:
        """Leave nothing behind."""
        if self.manager is not None:
            self.manager.kill()
            self.manager.communicate()
        self.up.end()

    def at_work(self) -> bool:
        return self.counts().get("running", 0) >= 1

    def all_given(self) -> bool:
        return self.at_work() and self.counts().get("in_queue") == 0

    def all_done(self) -> bool:
        return self.counts().get("completed") == len(self.tasks)

    def counts(self) -> dict[str, int]:
        """Tasks by status; none in the moment in which a killed Redis is started again."""
        done = self.up.run("status", "--json")
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"tasks": {}}
        return found["tasks"]

    def check(self) -> None:
        """Nothing lost, nothing done twice, nothing left."""
        status = self.up.ask("status")
        assert status["tasks"]["failed"] == status["tasks"]["in_queue"] == 0
        assert sum(w["held_tokens"] for w in status["workers"]) == 0
        prompts = self.terminal.entries("prompt")
        for number, name in enumerate(self.tasks):
            view: dict[str, Any] = self.up.ask("task", name)
            types = [event["type"] for event in view["events"]]
            assert types.count("task.completed") == 1, view
            # Whenever an agent was given it, that stands on the log as an attempt of its own.
            runs = prompts.count(f"play slow number {number}")
            assert 1 <= runs <= types.count("task.dispatched"), view
        done = self.up.run("replay", "--verify")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(self.agents()) == self.workers  # no agent of before is left
        sessions = self.terminal.tmux("list-sessions", "-F", "#{session_name}").split()
        assert sorted(sessions) == sorted(f"worker{n + 1}" for n in range(self.workers))


PARTS = ("manager", "bus", "redis", "worker", "tmux", "agent")
KILLS = [*((part,) for part in PARTS), *itertools.combinations(PARTS, 2)]
QUICK = (("worker",), ("manager", "agent"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "names",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.prove) for k in KILLS],
    ids="+".join,
)  # fmt: skip
def test_whatever_is_killed_nothing_is_lost_and_nothing_ends_twice(
    terminal: Terminal, names: tuple[str, ...]
) -> None:
    (terminal.folder / "asb.toml").write_text(
        "[tasks]\nlease_s = 9\nheartbeat_s = 3\nmax_attempts = 9\nbackoff_s = 1\n"
    )
    fleet = Fleet(terminal, 2)
    try:
        fleet.started()
        fleet.manage(3)
        wait_blocking(fleet.at_work, within=30)
        fleet.kill(*names)
        if "bus" in names:
            fleet.up.start()
        terminal.slow_enough()
        wait_blocking(fleet.all_done, within=120, what=f"all is done; {fleet.up.said}")
        wait_blocking(fleet.all_here, within=60)
        fleet.check()
    finally:
        fleet.end()


@pytest.mark.timeout(240)
def test_what_a_person_used_is_charged_once_by_whomever_it_is_told(terminal: Terminal) -> None:
    """Given a worker that died when it had told a person's work and not yet written down how far it
    was, then the next one tells the same again, and it counts once."""
    up = Up(terminal.folder)
    work = ("worker", "w1", "--driver=tmux", f"--session={SESSION}", f"--data-dir={up.data}")
    workers: list[Process] = []

    def told() -> list[bytes]:
        with contextlib.closing(SyncClient(up.url)) as client:
            entries = client.call("XRANGE", "asb:intake", "-", "+")
        return [
            f[f.index(b"id") + 1] for _, f in entries if f[1] == b"usage.recorded" and b"id" in f
        ]

    def charged() -> int:
        return int(up.ask("metrics")["total"]["tokens"])

    def delivered(task: str) -> bool:
        return "task.delivered" in [e["type"] for e in up.ask("task", task)["events"]]

    try:
        up.start()
        workers.append(Process(terminal.folder, *work))
        wait_blocking(lambda: up.ask("status")["workers"], within=60)
        terminal.type("play calls 1 by hand")
        wait_blocking(lambda: charged() == 2 * COUNTED, within=30)
        task = up.run("submit", "play slow").stdout.strip()
        wait_blocking(lambda: delivered(task), within=30)
        workers[0].stop(signal.SIGKILL)
        folder = kept.Folder(up.data, "w1")
        seat = folder.read()
        assert seat is not None
        assert seat.attempt is not None
        folder.write(replace(seat, attempt=replace(seat.attempt, offset=0)))
        workers.append(Process(terminal.folder, *work))
        terminal.slow_enough()
        wait_blocking(lambda: up.ask("task", task)["status"] == "completed", within=60)
        wait_blocking(lambda: len(told()) == 4, within=30, what=str(told()))
        assert len(set(told())) == 2
        assert charged() == (2 + 2) * COUNTED  # the person's and the task's, which takes two
    finally:
        for each in workers:
            each.stop(signal.SIGKILL)
        up.end()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [4, pytest.param(50, marks=pytest.mark.prove)])
def test_a_fleet_is_back_after_tmux_bus_and_redis_are_killed_together(
    terminal: Terminal, number: int
) -> None:
    (terminal.folder / "asb.toml").write_text("[tasks]\nmax_attempts = 9\nbackoff_s = 1\n")
    fleet = Fleet(terminal, number)
    try:
        fleet.up.start()
        wait_blocking(fleet.all_here, within=150, what="all workers are here")
        fleet.submit(number)
        wait_blocking(fleet.all_given, within=60, what="all is given out")
        fleet.kill("tmux", "bus", "redis")
        wait_blocking(lambda: not fleet.agents(), within=20, what="agents die with their terminal")
        fleet.up.start()
        wait_blocking(fleet.all_here, within=RECOVERED_S, what="all workers are back")
        terminal.slow_enough()
        wait_blocking(fleet.all_done, within=150, what="all is done")
        fleet.check()
    finally:
        fleet.end()
