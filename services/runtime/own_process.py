"""Processes of our own: modules of this very asb, from whatever folder a user stands in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from events.harmless import one_line
from services.runtime.errors import AsbError, CommandRefused

_ROOT = str(Path(__file__).resolve().parents[2])
# -P: Python must not look into the user's folder first, where a package `services` or `events`
# would stand in for ours. Where asb is installed the root is on the path already.
_BOOT = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
NICE = 15
ERROR_MAX = 1_000  # characters of an error that are kept


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` of ours as a program."""
    return [sys.executable, "-P", "-c", _BOOT, _ROOT, module, *arguments]


async def errand(module: str, order: bytes) -> str:
    """Have ``module`` of ours do something in a process of its own, off the loop; why it failed, ""
    where it did not. The ``order`` travels by its standard input: it may hold a password."""
    done = await anyio.run_process(
        command(module), input=order, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (said[-1] if said else f"its process ended with {done.returncode}")[:ERROR_MAX]


def run_errand(act: Callable[[bytes], object], nice: int = NICE) -> None:
    """That process: do what the order says, politely, and end with why it failed."""
    os.nice(nice)
    try:
        act(sys.stdin.buffer.read())
    except (AsbError, CommandRefused) as error:
        sys.stderr.write(one_line(str(error).splitlines()[0]) + "\n")
        sys.exit(1)
