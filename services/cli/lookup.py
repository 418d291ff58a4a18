"""What an id may be that no task has: refused, at an intake, or progress of foreign work."""

from __future__ import annotations

from typing import Any

import msgspec

from services.cli.terminal import note, say, say_json
from services.screens.status import RULE

# -- progress of work that asb did not dispatch --------------------------------------------------


def say_foreign(task_id: str, progress: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        say_json({"task": task_id, "progress": progress})
        return
    note(f"{task_id} is no task of this bus: it is progress of foreign work")
    for report in progress:
        say(f"PROGRESS {report['agent']}:{report['task']}  told {report['at']}")
        say(RULE)
        document = report["document"]
        if document is None:
            say("its key is gone, or is no JSON")
        else:
            encoded = msgspec.json.encode(document)
            say(msgspec.json.format(encoded, indent=2).decode())
