"""A bus over agents in tmux sessions, as people start it: the seed's commands, and asb's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.resident import COUNTED
from tests.agents.terminals import Terminal, agent_state, terminal
from tests.e2e.cli import ASB, ROOT, Process, Up, environment
from tests.ports import free_port
from tests.subscribers import subscriber
from tests.wait import wait_blocking

__all__ = ["terminal"]
pytestmark = pytest.mark.timeout(600)
SEED = """\
tmux new-session -d -s concurrent_worker{n} -c "$(pwd)" && \\
tmux send-keys -t concurrent_worker{n} "claude" Enter
"""


@pytest.fixture
def up(terminal: Terminal) -> Generator[Up]:
    made = Up(terminal.folder, "--workers=3", "--driver=tmux")
    yield made
    made.end()


def submit(up: Up, *texts: str) -> list[str]:
    done = up.run("submit", *texts)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def task(up: Up, name: str) -> dict[str, Any]:
    view: dict[str, Any] = up.ask("task", name)
    return view


def completed(up: Up, name: str, within: float = 30) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        view = task(up, name)
        return view if view["status"] in ("completed", "failed", "cancelled") else {}

    view = wait_blocking(look, within=within, what=f"{name} ends; {up.said}")
    assert view["status"] == "completed", view
    return view


def worker(up: Up, name: str) -> dict[str, Any]:
    workers: list[dict[str, Any]] = up.ask("status")["workers"]
    return next((w for w in workers if w["worker"] == name), dict[str, Any]())


def test_the_seeds_three_commands_and_its_manager(terminal: Terminal) -> None:
    for n in (1, 2, 3):
        subprocess.run(["sh", "-c", SEED.format(n=n)], check=True, cwd=terminal.folder)
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "concurrent_task_manager.py"), "Task 1", "Task 2"),
            *("Task 3", f"--data-dir={terminal.folder / 'bus'}"),
        ],
        capture_output=True,
        text=True,
        cwd=terminal.folder,
        env={**environment(), "ASB_EMBEDDED_PORT": str(free_port())},
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Total completed: 3" in done.stdout
    assert f"Total tokens used: {3 * COUNTED}" in done.stdout
    for n in (1, 2, 3):
        assert f"concurrent_worker{n}" in done.stdout
    assert sorted(terminal.entries("prompt")) == ["Task 1", "Task 2", "Task 3"]
    assert len({pid for pid in terminal.entries("pid") if pid}) == 3
    assert "concurrent_worker3" in terminal.tmux("list-sessions")  # the agents live on


def test_three_agents_work_and_one_that_asks_is_told_of_everywhere(
    terminal: Terminal, up: Up
) -> None:
    up.start()
    wait_blocking(lambda: len(up.ask("status")["workers"]) == 3, within=40, what=up.said)
    told: list[tuple[float, dict[str, Any]]] = []
    with contextlib.closing(subscriber(up.url)) as alerts:
        alerts.subscribe("asb:alerts")
        names = submit(up, "play ask", "play calls 2", "play agents")
        while not told:
            said = alerts.get_message(ignore_subscribe_messages=True, timeout=20)
            body: dict[str, Any] = json.loads(said["data"]) if said else {}
            if body.get("type") == "PERMISSION_WAIT":
                told.append((time.time(), body))
    moment, alert = told[0]
    assert moment - alert["since_us"] / 1e6 < 1.0
    assert alert["about"] == "Bash"
    asking = alert["worker"]
    view = worker(up, asking)
    assert view["status"] == "ASKS"
    assert view["agent_state"]["state"] == "permission"
    assert view["agent_state"]["evidence"] == "hook"
    assert f"{asking} waits for a person: permission for Bash" in up.run("status").stdout
    assert "PERMISSION_WAIT" in up.run("alerts", "--json").stdout
    for name in names[1:]:
        assert completed(up, name)["result"].startswith("Did: ")
    terminal.tmux("send-keys", "-t", f"={asking}:", "Enter")
    story = completed(up, names[0])
    assert "task.delivered" in [event["type"] for event in story["events"]]
    # One call, three calls, and a call with one of a subagent's.
    assert up.ask("metrics")["total"]["tokens"] == (2 + 3 + 2) * COUNTED
    assert up.run("deadletter").stdout.strip() == ""


def test_attach_shows_the_agents_session(terminal: Terminal) -> None:
    up = Up(terminal.folder, "--workers=1", "--driver=tmux")
    try:
        up.start()
        wait_blocking(lambda: worker(up, "worker1"), within=40, what=up.said)
        command = " ".join((*ASB, "attach", f"--data-dir={up.data}", "worker1"))
        terminal.tmux("new-session", "-d", "-s", "viewer", "-c", str(ROOT), command)
        wait_blocking(lambda: "worker1" in terminal.tmux("list-clients"), within=20)
        done = up.run("attach", "nobody")
        assert done.returncode == 1
        assert "asb worker nobody --driver tmux" in done.stderr
    finally:
        up.end()


def test_hooks_are_installed_beside_what_stands_there(terminal: Terminal) -> None:
    up = Up(terminal.folder)
    done = up.run("hooks", "install", "w1")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[-1])
    assert "agent-hook" in path.read_text()
    mine = terminal.folder / "settings.json"
    mine.write_text('{"model": "haiku", "hooks": {"Stop": [{"hooks": [{"command": "mine"}]}]}}')
    assert up.run("hooks", "install", "w1", "--file", str(mine)).returncode == 0
    content = json.loads(mine.read_text())
    assert content["model"] == "haiku"
    assert [h["hooks"][0]["command"] == "mine" for h in content["hooks"]["Stop"]] == [True, False]
    before = mine.read_text()
    assert "stood there already" in up.run("hooks", "install", "w1", "--file", str(mine)).stderr
    assert mine.read_text() == before
    mine.write_text("[]")
    done = up.run("hooks", "install", "w1", "--file", str(mine))
    assert (done.returncode, mine.read_text()) == (1, "[]")


def test_a_hook_outside_of_a_workers_session_does_nothing_and_never_fails(tmp_path: Path) -> None:
    for stdin in (b"", b"not json", b'{"hook_event_name": "Stop"}'):
        done = subprocess.run(
            [sys.executable, "-m", "services.cli.entry", "agent-hook"],
            input=stdin,
            capture_output=True,
            cwd=ROOT,
            env={**environment(), "TMUX_PANE": "%0", "TMUX": "/nowhere,1,0"},
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["before the next worker", "while the next worker is there"])
def test_the_next_worker_takes_up_what_the_agent_is_at_after_a_crash(
    terminal: Terminal, ends: str
) -> None:
    up = Up(terminal.folder)

    def joins() -> int:
        return up.run("events", "--type", "worker.joined", "--json").stdout.count("\n")

    try:
        up.start()
        with worker_process(terminal, up, "w1") as first:
            wait_blocking(joins, within=40, what=up.said)
            (name,) = submit(up, "play slow and finish")
            wait_blocking(lambda: delivered(up, name), within=20)
            first.stop(signal.SIGKILL)
        if ends == "before the next worker":
            terminal.slow_enough()
            wait_blocking(lambda: terminal.entries("answered"), within=20)
        with worker_process(terminal, up, "w1"):
            wait_blocking(lambda: joins() == 2, within=40)
            terminal.slow_enough()
            story = completed(up, name)
        assert story["result"] == "Did: 20 characters."
        assert [e["type"] for e in story["events"]].count("task.dispatched") == 1
        assert terminal.entries("prompt") == ["play slow and finish"]
        assert up.ask("metrics")["total"]["tokens"] == 2 * COUNTED
    finally:
        up.end()


@contextlib.contextmanager
def worker_process(terminal: Terminal, up: Up, name: str, *more: str) -> Generator[Process]:
    """A worker with an agent in tmux, apart from the bus."""
    process = Process(
        terminal.folder, "worker", name, f"--data-dir={up.data}", "--driver=tmux", *more
    )
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()


def delivered(up: Up, name: str) -> bool:
    return "task.delivered" in [event["type"] for event in task(up, name)["events"]]


def test_work_that_is_done_twice_is_an_alert_and_the_older_turn_ends(terminal: Terminal) -> None:
    (terminal.folder / "asb.toml").write_text("[tasks]\nlease_s = 6\nheartbeat_s = 2\n")
    up = Up(terminal.folder)
    try:
        up.start()
        with worker_process(terminal, up, "w1") as first:
            wait_blocking(lambda: worker(up, "w1"), within=40, what=up.said)
            (name,) = submit(up, "play slow for a long time")
            wait_blocking(lambda: delivered(up, name), within=20)
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        with worker_process(terminal, up, "w2"):
            wait_blocking(lambda: len(terminal.entries("prompt")) == 2, within=60, what=up.said)
            with worker_process(terminal, up, "w1"):
                wait_blocking(
                    lambda: "WORK_DONE_TWICE" in up.run("alerts", "--json").stdout, within=30
                )
                wait_blocking(lambda: agent_state(worker(up, "w1")) == "idle", within=30)
                assert task(up, name)["status"] == "started"  # at w2, and nowhere else
                assert up.run("cancel", name).returncode == 0
                wait_blocking(lambda: task(up, name)["status"] == "cancelled", within=30)
        assert len(terminal.entries("start")) == 2
        assert len(terminal.entries("prompt")) == 2
    finally:
        up.end()


def test_a_killed_workers_session_is_free_at_once_and_a_living_ones_is_not(
    terminal: Terminal,
) -> None:
    buses = [Up(terminal.folder / name) for name in ("first", "second")]
    try:
        for up in buses:
            up.folder.mkdir()
            up.start()
        first, second = buses
        with worker_process(terminal, first, "w1", "--session=shared") as holder:
            wait_blocking(lambda: worker(first, "w1"), within=40, what=first.said)
            done = second.run("worker", "w1", "--driver=tmux", "--session=shared")
            assert done.returncode == 1
            assert "session shared has a worker already: w1 (" in done.stderr
            assert "--session" in done.stderr
            os.kill(holder.process.pid, signal.SIGKILL)
            holder.process.wait()
            since = time.monotonic()
            with worker_process(terminal, second, "w1", "--session=shared"):
                wait_blocking(lambda: worker(second, "w1"), within=40, what=second.said)
                assert time.monotonic() - since < 20  # and no lease of 60 s
        assert len(terminal.entries("start")) == 1
    finally:
        for up in buses:
            up.end()


def test_a_worker_takes_over_the_name_and_the_session_of_one_that_is_alive(
    terminal: Terminal,
) -> None:
    up = Up(terminal.folder)
    try:
        up.start()
        with worker_process(terminal, up, "w1") as old:
            wait_blocking(lambda: worker(up, "w1"), within=40, what=up.said)
            done = up.run("worker", "w1", "--driver=tmux")
            assert (done.returncode, "w1 is alive" in done.stderr) == (1, True), done.stderr
            with worker_process(terminal, up, "w1", "--take-over"):
                assert old.process.wait(60) == 1
                (name,) = submit(up, "Say hello.")
                completed(up, name)
    finally:
        up.end()
