"""`--worktree` as people start it: a fleet over a repository, its stories, and a worker killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.terminals import Terminal, terminal
from tests.e2e.cli import Process, Up
from tests.integration.test_worktrees import Repository
from tests.wait import wait_blocking

__all__ = ["terminal"]
pytestmark = pytest.mark.timeout(600)
FLEET = """
[[workers]]
driver = "tmux"
name = "coder"
count = 2
worktree = true
cwd = "repository"
"""


@pytest.fixture
def repository(terminal: Terminal) -> Repository:
    return Repository(terminal.folder / "repository")


@pytest.fixture
def fleet(terminal: Terminal, repository: Repository) -> Generator[Up]:
    (terminal.folder / "fleet.toml").write_text(FLEET)
    up = Up(terminal.folder, "fleet.toml", command=("fleet", "up"))
    try:
        up.start()
        wait_blocking(lambda: len(up.ask("status")["workers"]) == 2, within=40, what=up.said)
        yield up
    finally:
        up.end()


def submit(up: Up, text: str, name: str) -> None:
    done = up.run("submit", text, "--id", name)
    assert done.returncode == 0, done.stderr


def ended(up: Up, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        view: dict[str, Any] = up.ask("task", name)
        return view if view["status"] in ("completed", "failed") else {}

    return wait_blocking(look, within=60, what=f"{name} ends; {up.said}")


def test_a_fleet_of_agents_in_tmux_works_in_worktrees_and_stories_say_where(
    terminal: Terminal, repository: Repository, fleet: Up
) -> None:
    names = ["task-1", "Task/2"]
    for name in names:
        submit(fleet, "play calls 2", name)
    for name in names:
        assert ended(fleet, name)["status"] == "completed"
    tree = fleet.ask("task", "task-1")["worktree"]
    place = repository.path / ".asb/worktrees/task-1"
    assert (tree["path"], tree["branch"]) == (str(place), "asb/task-1")
    said = fleet.run("task", "task-1").stdout
    assert f"in {place}" in said  # at its start
    assert "asb/task-1; kept:" in " ".join(said.split())
    started = {Path(cwd).name for cwd in terminal.entries("cwd")}
    assert len([name for name in started if name.startswith("task-2-")]) == 1
    assert {"task-1", "repository"} < started
    assert {"coder1", "coder2"} <= set(terminal.tmux("ls", "-F", "#{session_name}").split())
    assert fleet.run("deadletter").stdout.strip() == ""


def test_where_there_is_no_repository_nothing_is_started(terminal: Terminal) -> None:
    (terminal.folder / "asb.toml").write_text("[tasks]\nworktree = true\n")
    up = Up(terminal.folder)
    try:
        up.start()
        done = up.run("worker", "w1", "--driver", "tmux")
        assert done.returncode == 1
        assert "no git repository" in done.stderr
        assert "--cwd" in done.stderr
        assert up.ask("status")["workers"] == []
        done = up.run("worker", "w1", "--worktree", "--", "cat")
        assert (done.returncode, "is for agents" in done.stderr) == (2, True)
    finally:
        up.end()


def test_the_next_worker_takes_up_the_agent_in_its_worktree_after_a_crash(
    terminal: Terminal, repository: Repository
) -> None:
    up = Up(terminal.folder)
    arguments = ("worker", "w1", f"--data-dir={up.data}", "--driver=tmux", "--worktree")
    arguments += (f"--cwd={repository.path}",)
    processes: list[Process] = []
    try:
        up.start()
        processes.append(Process(terminal.folder, *arguments))
        submit(up, "play slow and finish", "t1")
        wait_blocking(lambda: terminal.entries("prompt"), within=60, what=up.said)
        (repository.path / ".asb/worktrees/t1/new.txt").write_text("half done")
        os.kill(processes[0].process.pid, signal.SIGKILL)
        processes[0].process.wait()
        processes.append(Process(terminal.folder, *arguments))
        terminal.slow_enough()
        story = ended(up, "t1")
        assert story["result"] == "Did: 20 characters."
        assert story["worktree"]["kept"] == "1 changed file"
        assert [e["type"] for e in story["events"]].count("task.dispatched") == 1
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.process.terminate()
                process.process.wait(20)
        up.end()
    assert terminal.entries("prompt") == ["play slow and finish"]
    assert len(terminal.entries("start")) == 2
