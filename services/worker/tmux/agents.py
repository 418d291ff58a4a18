"""The agent in a pane: its process, and what it says of itself, read as it grows.

Claude Code keeps ``sessions/<pid>.json`` (its state) and ``projects/*/<session>.jsonl`` (its
transcript) in its folder of settings; what its hooks hand over stands in a file of ours.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from services.worker.drivers.loose import number_in, text_in
from services.worker.drivers.transcripts import is_session
from services.worker.identity import runs, stat
from services.worker.tmux.state import Signs
from services.worker.tmux.turns import Turns
from services.worker.usage import as_object

CHUNK_BYTES = 8 * 2**20  # of a file at one look


class GrowingFile:
    """The objects in a file of JSON lines, as lines are added; a line cut short waits."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset = path, offset

    def entries(self) -> Generator[dict[str, Any]]:
        """Those that came since the last look."""
        try:
            if self.path.stat().st_size < self.offset:
                self.offset = 0  # made anew
            elif self.path.stat().st_size == self.offset:
                return
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(CHUNK_BYTES)
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            entry = as_object(line)
            if entry is not None:
                yield entry

    def to_its_end(self) -> None:
        """Leave out what stands there."""
        with contextlib.suppress(OSError):
            self.offset = self.path.stat().st_size


class AgentInPane:
    """See the module. ``since`` (seconds since the epoch): what is older is none of ours."""

    def __init__(self, pid: int, folder: Path, signs: Path, since: float) -> None:
        self.pid, self._folder, self.since = pid, folder, since
        self.started = stat(pid)[1]
        self.state = Signs(since)
        self.talk = Turns()
        self.hooks: list[dict[str, Any]] = []  # what they handed over since the driver asked
        self.session = ""
        self._signs = GrowingFile(signs)
        self._transcript: GrowingFile | None = None
        self._subagents: dict[Path, GrowingFile] = {}
        self._file_at = 0

    @property
    def alive(self) -> bool:
        return runs(self.pid, self.started)

    @property
    def transcript(self) -> GrowingFile | None:
        """Its transcript; None before there is one."""
        return self._transcript

    def read_from(self, transcript: str, offset: int) -> None:
        """Go on in a transcript where another worker was."""
        self._transcript = GrowingFile(Path(transcript), offset)

    def begin_here(self) -> None:
        """Leave out what was before: it is none of ours."""
        self._signs.to_its_end()

    def take_hooks(self) -> list[dict[str, Any]]:
        """What the hooks handed over since this was asked."""
        taken, self.hooks = self.hooks, []
        return taken

    def forget_hooks(self) -> None:
        """Prompts do not stay in our file."""
        with contextlib.suppress(OSError):
            os.truncate(self._signs.path, 0)
        self._signs.offset = 0

    def look(self) -> None:
        """Take in what is new."""
        for entry in self._signs.entries():
            moment = entry.get("at", 0.0)
            if isinstance(moment, int | float) and moment >= self.since:
                self._follow(text_in(entry, "session_id"), text_in(entry, "transcript_path"))
                self.state.hook(entry, moment)
                self.hooks.append(entry)
        self._look_at_state()
        self._look_at_transcripts()
        if not self.alive:
            self.state.dead(time.time())

    def _look_at_state(self) -> None:
        path = self._folder / "sessions" / f"{self.pid}.json"
        try:
            written = path.stat().st_mtime_ns
            if written == self._file_at:
                return
            content = as_object(path.read_bytes())
        except OSError:
            return
        if content is None:
            return  # it is being written
        self._file_at = written
        self._follow(text_in(content, "sessionId"))
        moment = number_in(content, "statusUpdatedAt") / 1000
        self.state.file(content, max(moment, self.since))

    def _follow(self, session: str, transcript: str = "") -> None:
        """The conversation it is in now: /clear begins another one."""
        if not is_session(session):
            return
        self.session = session
        if transcript:
            paths = [Path(transcript)]
        elif self._transcript is not None and self._transcript.path.stem == session:
            return
        else:
            paths = list(self._folder.glob(f"projects/*/{session}.jsonl"))
        if paths and (self._transcript is None or self._transcript.path != paths[0]):
            self._transcript = GrowingFile(paths[0])
            self._subagents.clear()

    def _look_at_transcripts(self) -> None:
        if self._transcript is None:
            self._follow(self.session)
        if self._transcript is None:
            return
        for entry in self._transcript.entries():
            moment = moment_of(entry)
            if moment >= self.since:
                self.talk.take(entry, moment)
        path = self._transcript.path
        for file in (path.parent / path.stem / "subagents").glob("agent-*.jsonl"):
            for entry in self._subagents.setdefault(file, GrowingFile(file)).entries():
                moment = moment_of(entry)
                if moment >= self.since:
                    self.talk.take_of_subagent(entry, moment)
        self.state.worked(self.talk.worked_at)
        if self.talk.current.ended and self.talk.turns:
            self.state.over(self.talk.ended_at)

    @property
    def is_free(self) -> bool:
        """Whether a prompt would begin a turn at once."""
        return not self.state.now.at_work


def moment_of(entry: Mapping[str, Any]) -> float:
    """When a line was written, seconds since the epoch; 0 where it does not say so."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text_in(entry, "timestamp")).timestamp()
    return 0.0


def find(
    pane_pid: int, environ: Mapping[str, str], folder_of: Callable[[Mapping[str, str]], Path]
) -> tuple[int, Path] | None:
    """The agent in a pane that began with ``pane_pid``: its process and its folder of settings,
    which is where it keeps its state file. ``environ`` is ours, where its own cannot be seen."""
    for pid in (pane_pid, *descendants(pane_pid)):
        folder = folder_of(environment_of(pid) or environ)
        if (folder / "sessions" / f"{pid}.json").exists():
            return pid, folder
    return None


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; nothing where it cannot be seen."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (part.partition(b"=") for part in data.split(b"\0") if b"=" in part)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def descendants(pid: int) -> list[int]:
    """The processes below ``pid``, nearest first."""
    done = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, timeout=5, check=False
    )
    below: dict[int, list[int]] = {}
    for line in done.stdout.splitlines():
        child, parent = map(int, line.split())
        below.setdefault(parent, []).append(child)
    order, row = list[int](), below.get(pid, [])
    while row:
        order += row
        row = [child for parent in row for child in below.get(parent, [])]
    return order
