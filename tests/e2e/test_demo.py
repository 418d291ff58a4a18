"""`asb demo` as a newcomer runs it, and again with a command of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.cli import AGENT, asb


def test_the_demo_ends_with_the_seeds_screens(tmp_path: Path) -> None:
    done = asb("demo", f"--data-dir={tmp_path}", "--speed", "50", "--tasks", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    screens = done.stdout
    assert "\nTotal completed: 12\n" in screens
    assert "  concurrent_worker3   🟢 IDLE     | Done: " in screens
    assert "\nTOKEN USAGE & COST METRICS\n" in screens
    assert screens.count("Global Throttle Status:") == 2
    assert "vs everything on sonnet" in screens
    assert "SIMULATED" in done.stderr
    assert str(tmp_path / "demo") in done.stderr
    assert done.stderr.rpartition("Try next:")[2].count("\n  asb ") == 3


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


def test_the_seeds_command_says_how_to_start_a_bus(tmp_path: Path) -> None:
    done = asb("manager", f"--data-dir={tmp_path}", "Task 1", cwd=tmp_path)
    assert done.returncode == 1
    assert "`asb up` starts one" in done.stderr
