"""The settings of an agent that make its hooks call ``asb agent-hook``."""

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


def command() -> str:
    """The command line for hook settings, by its full path: an agent may have another PATH."""
    program = Path(sys.executable).with_name("asb")
    if program.exists():
        return shlex.join([str(program), COMMAND])
    return shlex.join(own_process.command("services.cli.entry", COMMAND))


def settings() -> dict[str, list[Any]]:
    """Claude Code's ``hooks`` that call us at each of EVENTS."""
    call = {"type": "command", "command": command(), "timeout": 10}
    return {event: [{"hooks": [call]}] for event in EVENTS}


def install(path: Path) -> bool:
    """Write the hooks into the settings file ``path``, beside what stands there; False where they
    stood there already. Raises ValueError where the file is none, OSError where it cannot be
    written."""
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
    missing = {event: each for event, each in settings().items() if not _calls(hooks.get(event))}
    if not missing:
        return False
    for event, each in missing.items():
        hooks[event] = [*(hooks.get(event) or []), *each]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
    return True


def _calls(matchers: Any) -> bool:
    """Whether a hook calls us already."""
    return COMMAND in json.dumps(matchers or [])
