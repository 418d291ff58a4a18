"""Processes of our own: modules of this very asb, from whatever folder a user stands in."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
# -P: Python must not look into the user's folder first, where a package `services` or `events`
# would stand in for ours. Where asb is installed the root is on the path already.
_BOOT = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` of ours as a program."""
    return [sys.executable, "-P", "-c", _BOOT, _ROOT, module, *arguments]
