"""The seed's command: ``python3 concurrent_task_manager.py ["Task 1" "Task 2" …]``."""

from __future__ import annotations

import sys

from services.cli.main import main

if __name__ == "__main__":
    main(["manager", *sys.argv[1:]])
