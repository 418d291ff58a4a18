"""A terminal of a given size, as a person has it: a window of tmux on a server of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.e2e.cli import environment


class Window:
    """What is typed into it, and what it shows."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *arguments: str, **variables: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments],
            capture_output=True, text=True, check=True, timeout=20,
            env={**environment(), "LC_ALL": "C.UTF-8", "TERM": "xterm", **variables},
        ).stdout  # fmt: skip

    def types(self, line: str) -> None:
        """A line and Enter."""
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def shows(self, *, history: bool = False) -> str:
        """The lines in view, or all since it was opened."""
        back = ("-S", "-") if history else ()
        return self.tmux("capture-pane", "-p", *back)


@contextlib.contextmanager
def window(folder: Path, columns: int, lines: int) -> Generator[Window]:
    """A plain shell in ``folder``."""
    opened = Window(folder / "tmux")
    size = ("-x", str(columns), "-y", str(lines))
    opened.tmux("-u", "new-session", "-d", *size, "-c", str(folder), "sh", PS1="$ ")
    try:
        yield opened
    finally:
        opened.tmux("kill-server")
