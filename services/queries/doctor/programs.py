"""Which agents' command lines, and tmux, this machine has, and which versions."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping

from services.store.health import FactRow
from services.worker.drivers.table import AGENTS

ANSWER_S = 3.0  # nobody waits for a doctor for long
LENGTH = 40  # characters of a version that are shown
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+-]*|\d+\.\d+[a-z]?")


def versions(commands: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The version that each program on PATH tells, by name; "unknown" where it tells none in time.
    All are asked at once; one that is not there is left out."""
    asked: dict[str, subprocess.Popen[str]] = {}
    for name, (program, *arguments) in commands.items():
        if (path := shutil.which(program)) is not None:
            try:
                asked[name] = subprocess.Popen(
                    [path, *arguments], text=True, errors="replace",
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError:
                continue
    return {name: _answer(process) for name, process in asked.items()}


def _answer(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "unknown"
    match = _VERSION.search(said)
    return match[0][:LENGTH] if match else "unknown"


def program_rows() -> Iterator[FactRow]:
    """One row for the agents, one for tmux."""
    asked = {name: (name, "--version") for name in AGENTS} | {"tmux": ("tmux", "-V")}
    present = versions(asked)
    tmux = present.pop("tmux", "")
    named = ", ".join(f"{name} {version}" for name, version in present.items())
    yield (
        "agents",
        named or f"none of {', '.join(AGENTS)} on PATH; any command will do",
        "ok",
        "",
    )
    yield ("tmux", tmux or "not on PATH; only agents that live in it need it", "ok", "")
