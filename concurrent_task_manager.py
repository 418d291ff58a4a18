"""The seed's command: ``python3 concurrent_task_manager.py ["Task 1" "Task 2" …]``.

Any Python may start it: where this one lacks what asb needs, the environment that ``make install``
put beside this file takes over. (So this file itself has to be readable to an old Python.)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"


def run() -> None:
    """The prompt, or the tasks that were given; ends the process with an exit code."""
    if sys.version_info < (3, 11):
        elsewhere(f"this is Python {sys.version_info[0]}.{sys.version_info[1]}")
    try:
        from services.cli.main import main
    except ImportError as error:
        elsewhere(str(error))
    main(["manager", *sys.argv[1:]])


def elsewhere(problem: str) -> NoReturn:
    """Start again in the environment beside this file; else say how to make one, and end."""
    python = ENVIRONMENT / "bin" / "python"
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve() and os.access(python, os.X_OK):
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.stderr.write(
        f"error: this Python cannot run asb: {problem}\n"
        f"hint: make -C {HERE} install, then the same command again\n"
    )
    sys.exit(1)


if __name__ == "__main__":
    run()
