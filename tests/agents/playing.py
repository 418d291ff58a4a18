"""The scripted agent put where a driver finds it: on PATH, under the names of the real ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents import scripted


class Stage:
    """A folder with the agents, and what was written of each start."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.codex_home = folder / "codex"
        self._log = folder / "starts.jsonl"
        self.bin.mkdir()
        for name in scripted.PARTS:
            # A launcher with the agent's name: what the script sees as its own.
            launcher = self.bin / name
            launcher.write_text(
                f"#!{sys.executable}\n{_LAUNCH.format(path=scripted.__file__, root=str(ROOT))}"
            )
            launcher.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "SCRIPTED_LOG": str(self._log),
            "CODEX_HOME": str(self.codex_home),
        }

    def starts(self) -> list[dict[str, Any]]:
        """How it was started each time, oldest first."""
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]


ROOT = Path(__file__).parents[2]
_LAUNCH = """\
import sys; sys.path.insert(0, {root!r})
exec(compile(open({path!r}).read(), {path!r}, 'exec'))
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
