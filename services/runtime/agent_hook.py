"""The other end of an agent's hooks: ``asb agent-hook``, the one command in hook settings.

It reads what the agent hands over on standard input and adds a line to the file that the agent's
pane in tmux names; without such a file it does nothing. It never says anything and never fails: an
agent would take what it says as part of a prompt, and an error as a veto. Standard library only,
and nothing else of ours, for an agent waits for it each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

OPTION = "@asb_signs"  # of a pane: the file to which the hooks of its agent write
INPUT_BYTES = 4 * 2**20
TMUX_S = 5.0
KEPT = (
    *("hook_event_name", "session_id", "transcript_path", "prompt_id", "prompt", "tool_name"),
    *("notification_type", "error", "last_assistant_message", "background_tasks", "source"),
)


def main() -> None:
    """What ``asb agent-hook`` does."""
    with contextlib.suppress(Exception):
        entry = json.loads(sys.stdin.buffer.read(INPUT_BYTES))
        path = _file(os.environ)
        if path and isinstance(entry, dict):
            _add(path, line_of(cast("dict[str, Any]", entry), time.time()))


def line_of(entry: Mapping[str, Any], moment: float) -> bytes:
    """A line for the file, of what a hook was handed at ``moment``."""
    kept = {name: entry[name] for name in KEPT if name in entry}
    return json.dumps({"at": moment, **kept}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _file(environ: Mapping[str, str]) -> str:
    """The file that the pane names; "" where there is no pane, or it names none."""
    pane = environ.get("TMUX_PANE", "")
    if not pane.startswith("%") or not environ.get("TMUX"):
        return ""
    done = subprocess.run(
        ["tmux", "show-options", "-pqv", "-t", pane, OPTION],
        capture_output=True,
        timeout=TMUX_S,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace").strip()


def _add(path: str, line: bytes) -> None:
    """Only to a file that is there: nobody makes one by naming it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
