"""`asb demo` as a newcomer runs it, and again with a command of one's own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.e2e.cli import AGENT, ASB, Up, asb
from tests.e2e.windows import window
from tests.wait import wait_blocking


def test_the_demo_ends_with_the_status_screen_in_view_at_80_by_24(tmp_path: Path) -> None:
    """In a terminal of that size, as people see it; what is typed next stands before it."""
    with window(tmp_path, 80, 24) as screen:
        line = f"{shlex.join(ASB)} demo --data-dir={tmp_path} --speed 50 --tasks 12; echo ended $?"
        screen.types(f"clear; {line}")
        wait_blocking(lambda: "ended 0" in screen.shows(), within=60, what="the demo ends")
        seen, whole = screen.shows(), screen.shows(history=True)
    assert "CONCURRENT TASK MANAGER STATUS" in seen
    assert "\nTotal completed: 12\n" in seen
    assert "  concurrent_worker3   🟢 IDLE     | Done: " in seen
    assert whole.count("Global Throttle Status:") == 1
    before = whole.partition("CONCURRENT TASK MANAGER STATUS")[0]
    assert "SIMULATED" in before
    assert "Try next" in before


def test_what_the_demo_says_to_type_works_when_it_is_pasted(tmp_path: Path) -> None:
    done = asb("demo", f"--data-dir={tmp_path}", "--speed", "50", "--tasks", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stderr.partition("Try next")[2].splitlines()]
    typed = [line for line in lines if line.startswith(("asb ", ". "))]
    up, again = next(x for x in typed if " up " in x), lines[-1] or lines[-2]
    assert f"--data-dir {tmp_path / 'demo'} up" in again
    bus = Up(tmp_path, *shlex.split(up)[2:])
    try:
        bus.start()
        for line in typed:
            if line.startswith(("asb submit", "asb status")):
                told = bus.run(*shlex.split(line)[1:])
                assert told.returncode == 0, told.stderr
                assert "completed" in told.stdout or "STATUS" in told.stdout
    finally:
        bus.end()


def test_the_demo_with_ones_own_command_and_kept_data(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    command = ("--", sys.executable, str(tmp_path / "agent.py"))
    common = ("demo", f"--data-dir={tmp_path}", "--tasks", "5")
    first = asb(*common, *command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Total tokens used: 6,000" in first.stdout
    assert "SIMULATED" not in first.stderr
    kept = asb(*common, "--keep", *command, cwd=tmp_path)
    # The five with ids of their own were done before: only one is new.
    assert kept.returncode == 0, kept.stderr
    assert "Total completed: 6" in kept.stdout


def test_the_demo_removes_only_what_a_demo_made(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("three years of work")
    done = asb("demo", f"--data-dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert "was not made by a demo" in done.stderr
    assert (tmp_path / "demo" / "thesis.txt").exists()


def test_the_seeds_command_starts_a_bus_and_says_what_gives_workers(tmp_path: Path) -> None:
    data = f"--data-dir={tmp_path}"
    done = asb("manager", data, "Task 1", "Task 2", cwd=tmp_path, seconds=60)
    assert done.returncode == 1
    assert "Tasks in queue: 2" in done.stdout
    for number in (1, 2, 3):
        assert f"concurrent_worker{number}   ⚫ ABSENT" in done.stdout
    assert "asb up --workers 3 -- ./my-agent.sh" in done.stderr
    assert "asb worker concurrent_worker1 -- ./my-agent.sh" in done.stderr
    assert "the tasks stay" in done.stderr
    up = Up(tmp_path, "--workers", "1", "--", "cat")
    up.data = tmp_path
    try:
        up.start()  # they do: now somebody works
        wait_blocking(lambda: up.ask("status")["tasks"]["completed"] == 2, within=20, what="both")
        good = up.run("manager", "Task 3")
        assert good.returncode == 0, good.stderr
        assert "Total completed: 3" in good.stdout
    finally:
        up.end()


def test_the_seeds_command_ends_with_1_when_a_task_failed(tmp_path: Path) -> None:
    up = Up(tmp_path, "--workers", "1", "--", "sh", "-c", "cat >/dev/null; exit 3")
    up.data.mkdir()
    (tmp_path / "asb.toml").write_text("[tasks]\nmax_attempts = 1\n")
    try:
        up.start()
        done = up.run("manager", "Task 1")
        assert (done.returncode, "1 task failed" in done.stderr) == (1, True)
        assert "CONCURRENT TASK MANAGER STATUS" in done.stdout
        failed = up.run("tasks", "--failed").stdout
        assert "exited with status 3" in failed
    finally:
        up.end()


def test_the_seeds_prompt_runs_on_a_bus_of_its_own(tmp_path: Path) -> None:
    said = asb("manager", f"--data-dir={tmp_path}", cwd=tmp_path, stdin="add One\nstatus\nquit\n")
    assert said.returncode == 0, said.stderr
    assert "Added " in said.stdout
    assert "ABSENT" in said.stdout
