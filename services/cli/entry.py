"""Where ``asb`` begins: help and version are said at once, everything else is loaded for a command.

A person who types ``asb`` to see what there is should not wait for a parser of options, nor should
an agent for each of its hooks.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The program ``asb``: one command; the process ends with its exit code."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked in ("-h", "--help", "--version"):
        from services.cli.table import help_text
        from services.runtime import VERSION

        said = f"asb {VERSION}\n" if asked == "--version" else help_text()
        sys.stdout.write(said)
        return
    if sys.argv[1:] == ["agent-hook"]:
        from services.runtime.agent_hook import main as hook

        hook()
        return
    from services.cli.main import main as run

    run()
