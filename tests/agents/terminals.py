"""tmux with the agent that plays Claude Code in its sessions, on a server of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from services.worker.drivers.agent import Choice
from services.worker.drivers.table import agent
from services.worker.drivers.tmux import TmuxDriver
from services.worker.tmux import kept
from services.worker.tmux.agent_session import Residence
from tests.agents import resident

SESSION = "agent1"


def agent_state(worker: dict[str, Any]) -> str:
    """What the agent of a worker does, by the worker's row of `asb status --json`; "" unsaid."""
    said: dict[str, Any] | None = worker.get("agent_state")
    return said["state"] if said else ""


class Terminal:
    """A tmux server of its own, and a folder with the agent under its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "resident.jsonl"
        self.data = folder / "data"
        self._enough = folder / "enough"
        self.bin = folder / "bin"
        self.bin.mkdir()
        program = self.bin / "claude"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {resident.__file__} "$@"\n')
        program.chmod(0o755)
        # A login shell would set another PATH.
        (folder / ".tmux.conf").write_text('set -g default-command "exec sh"\n')

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "TMUX_TMPDIR": str(self.folder),
            "HOME": str(self.folder),
            "RESIDENT_LOG": str(self.log),
            "SLOW_UNTIL": str(self._enough),
            "CLAUDE_CONFIG_DIR": str(self.folder / "settings"),
        }

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", *arguments], capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout

    def type(self, text: str) -> None:
        """As a person does."""
        self.tmux("send-keys", "-t", f"={SESSION}:", "-l", text)
        self.tmux("send-keys", "-t", f"={SESSION}:", "Enter")

    def slow_enough(self) -> None:
        """Agents that play slow may end, now and later."""
        self._enough.touch()

    def entries(self, name: str) -> list[Any]:
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line[name] for line in lines if name in line]

    def driver(self, **chosen: Any) -> TmuxDriver:
        restart = chosen.pop("restart", False)
        place = Residence(session=SESSION, folder=kept.Folder(self.data, "w1"), restart=restart)
        return TmuxDriver(agent("claude"), Choice(**chosen), place)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Terminal]:
    made = Terminal(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("TMUX", "TMUX_PANE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.tmux("kill-server")
