"""The settings of an agent that make its hooks call ``asb agent-hook``, and wait where its worker
holds it: before and after each tool, which is between any two calls to a model."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, cast

from services.runtime import own_process

COMMAND = "agent-hook"
EVENTS = (
    *("SessionStart", "SessionEnd", "UserPromptSubmit", "PermissionRequest", "Notification"),
    *("Stop", "StopFailure"),
)


HOLDS = ("PreToolUse", "PostToolUse")
HELD_S = 86_400  # longer than attempts take; then an agent goes on


def held(folder: Path) -> Path:
    """The file that is there while the agent of a worker is to wait; ``folder``: the worker's."""
    return folder / "held"


def command() -> str:
    """The command line for hook settings, by its full path: an agent may have another PATH."""
    program = Path(sys.executable).with_name("asb")
    if program.exists():
        return shlex.join([str(program), COMMAND])
    return shlex.join(own_process.command("services.cli.entry", COMMAND))


def settings(folder: Path) -> dict[str, list[Any]]:
    """Claude Code's ``hooks`` for the agent of the worker that has ``folder``."""
    call = {"type": "command", "command": command(), "timeout": 10}
    # A shell's own loop: it stands before every tool, and nothing of ours is started for it.
    wait = f"while [ -e {shlex.quote(str(held(folder)))} ]; do sleep 1; done"
    hold = {"type": "command", "command": wait, "timeout": HELD_S}
    calls, waits = dict.fromkeys(EVENTS, call), dict.fromkeys(HOLDS, hold)
    return {event: [{"hooks": [each]}] for event, each in (calls | waits).items()}


def install(path: Path, folder: Path) -> bool:
    """Write the hooks of the worker that has ``folder`` into the settings file ``path``, beside
    what stands there; False where they stood there already. Raises ValueError where the file is
    none, OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before: Any = {}
    with contextlib.suppress(FileNotFoundError):
        before = json.loads(path.read_text(encoding="utf-8") or "{}")
    if not isinstance(before, dict) or not isinstance(
        cast("dict[str, Any]", before).get("hooks", {}), dict
    ):
        raise ValueError("it holds no settings")
    whole = cast("dict[str, Any]", before)
    hooks: dict[str, Any] = whole.setdefault("hooks", {})
    missing = {
        event: each
        for event, each in settings(folder).items()
        if not _has(hooks.get(event), COMMAND if event in EVENTS else each)
    }
    if not missing:
        return False
    for event, each in missing.items():
        hooks[event] = [*(hooks.get(event) or []), *each]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
    return True


def _has(matchers: Any, ours: str | list[Any]) -> bool:
    """Whether ``ours`` is among the hooks of an event already."""
    if isinstance(ours, str):
        return ours in json.dumps(matchers or [])
    return all(matcher in (matchers or []) for matcher in ours)
