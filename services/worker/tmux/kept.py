"""Which agent a worker has, and which attempt it is at: written down in the data folder, so that
the next worker of that name finds both after a crash. No word of a task stands there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from services.worker.tmux import hooks


class KeptAttempt(msgspec.Struct, frozen=True):
    """An attempt in an agent's hands. ``session``: the agent's own; its turn stands behind
    ``offset`` in ``transcript``."""

    task: str
    attempt: int
    session: str = ""
    transcript: str = ""
    offset: int = 0

    def is_of(self, task: str, attempt: int) -> bool:
        return (self.task, self.attempt) == (task, attempt)


class Seat(msgspec.Struct, frozen=True):
    """Where a worker's agent is: the session in tmux (and its server's socket), and the process,
    by its pid and its start in clock ticks. ``conversation`` is the agent's own session, which it
    can go on with; ``folder`` is where it was started ("": unknown); ``receiver`` the address that
    it sends its telemetry to."""

    session: str
    socket: str = ""
    pid: int = 0
    started: str = ""
    conversation: str = ""
    attempt: KeptAttempt | None = None
    folder: str = ""
    receiver: str = ""


class Folder:
    """A worker's folder in the data folder: 0700, for hooks write prompts into a file there."""

    def __init__(self, data_dir: Path, worker: str) -> None:
        self.path = data_dir.expanduser() / "agents" / "tmux" / worker
        self.signs = self.path / "signs.jsonl"
        self.settings = self.path / "settings.json"
        self._held = hooks.held(self.path)
        self._seat = self.path / "seat.json"

    def make(self) -> None:
        """Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.signs, os.O_CREAT | os.O_WRONLY, 0o600))

    def hold(self, held: bool) -> None:
        """Have the agent wait before its next step, by its hooks, or go on. Raises OSError."""
        if held:
            self._held.touch(mode=0o600)
        else:
            self._held.unlink(missing_ok=True)

    def read(self) -> Seat | None:
        """What was written last; None where nothing can be read."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._seat.read_bytes(), type=Seat)
        return None

    def write(self, seat: Seat) -> None:
        """Raises OSError."""
        beside = self._seat.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(seat))
        beside.replace(self._seat)
