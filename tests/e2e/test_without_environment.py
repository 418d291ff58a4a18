"""The seed's own command as a newcomer types it: with whatever ``python3`` is at hand."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.e2e.cli import ROOT, environment


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A checkout without an environment."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "concurrent_task_manager.py", folder)
    for name in ("events", "projections", "services"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def type_it(sources: Path) -> subprocess.CompletedProcess[str]:
    """``python3 concurrent_task_manager.py "Task 1"``, by a Python that has nothing installed."""
    nothing = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-S", "concurrent_task_manager.py", "--data-dir=data", "Task 1"],
        capture_output=True, text=True, cwd=sources, env=nothing, timeout=50, check=False,
    )  # fmt: skip


def test_it_says_what_to_run_where_there_is_no_environment(sources: Path) -> None:
    done = type_it(sources)
    assert done.returncode == 1
    assert done.stderr.startswith("error: this Python cannot run asb: No module named ")
    assert f"hint: make -C {sources} install" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_finds_the_environment_beside_it(sources: Path) -> None:
    python = sources / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = type_it(sources)
    assert done.returncode == 1
    assert "asb up --workers 3" in done.stderr  # it runs, on a bus of its own without workers


def test_a_half_made_environment_is_no_endless_loop(sources: Path) -> None:
    venv.create(sources / ".venv", symlinks=True)
    done = type_it(sources)
    assert done.returncode == 1
    assert "hint: make -C" in done.stderr
