"""What an id may be that no task has: refused, at an intake, or progress of foreign work."""

from __future__ import annotations

from typing import Any

import msgspec

from services.cli.terminal import note, say, say_json
from services.screens.status import RULE

# -- progress of work that asb did not dispatch --------------------------------------------------


def say_foreign(task_id: str, found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        say_json({"task": task_id, "progress": found})
        return
    note(f"{task_id} is no task of this bus: it is progress of foreign work")
    for one in found:
        say(f"PROGRESS {one['agent']}:{one['task']}  told {one['at']}")
        say(RULE)
        document = one["document"]
        if document is None:
            say("its key is gone, or is no JSON")
        else:
            encoded = msgspec.json.encode(document)
            say(msgspec.json.format(encoded, indent=2).decode())
