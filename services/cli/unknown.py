"""What an id may be that no task has: refused, at a door, or progress of foreign work."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from projections import progress_view
from projections.state import State
from services.cli import follow, out
from services.cli.bus import Bus
from services.cli.screens import RULE
from services.runtime.errors import Refused

SCAN_COUNT = 1_000


def unknown(b: Bus, state: State, task_id: str) -> Refused:
    """Why there is no such task: refused, not yet taken in, or never heard of."""
    for letter in follow.dead_letters(b):
        if letter.entry == task_id or f"{letter.door}.{letter.entry}".endswith(f":{task_id}"):
            return Refused(
                f"task {task_id} was refused: {letter.error}",
                hint="correct it and submit it again",
            )
    door = _door_of(b, task_id)
    if door is None:
        return Refused(f"there is no task {task_id}", hint="`asb tasks` lists them")
    if door == b.keys.main_door or door in state.doors:
        return Refused(
            f"task {task_id} waits at the door {door}: no desk has taken it in yet",
            hint="`asb up` or `asb service engine` runs one",
        )
    name = door.removeprefix(b.keys.main_door + ":")
    return Refused(
        f"task {task_id} stands at the door {door}, which nobody opened: it is not read",
        hint=f"`asb acl {name}` opens the door of {name}",
    )


def _door_of(b: Bus, task_id: str) -> str | None:
    """The door at which this entry stands: of named doors ``NAME.ENTRY`` is understood, too."""
    name, _, entry = task_id.rpartition(".")
    if not re.fullmatch(r"\d{1,19}-\d{1,19}", entry):
        return None
    doors = [b.keys.door(name)] if name else [b.keys.main_door, *_named_doors(b)]
    return next((door for door in doors if _stands_at(b, door, entry)), None)


def _stands_at(b: Bus, door: str, entry: str) -> bool:
    if b.client.call("TYPE", door) != b"stream":
        return False
    return bool(b.client.call("XRANGE", door, entry, entry))


def _named_doors(b: Bus) -> list[str]:
    """All doors but the shared one, opened or not."""
    found: set[str] = set()
    cursor = b"0"
    while True:
        cursor, keys = b.client.call(
            "SCAN", cursor, "MATCH", b.keys.door("*"), "COUNT", SCAN_COUNT, "TYPE", "stream"
        )
        found.update(key.decode("utf-8", "replace") for key in keys)
        if cursor == b"0":
            return sorted(found)


# -- progress of work that asb did not dispatch --------------------------------------------------


def foreign(b: Bus, state: State, task_id: str) -> list[dict[str, Any]]:
    """The progress documents that agents told of foreign work of this name; [] where none did."""
    found: list[dict[str, Any]] = []
    for name, record in state.progress.items():
        agent, _, task = name.partition(":")
        if task_id in (task, name):
            kept = b.client.call("GET", b.keys.progress(agent, task))
            found.append(
                {
                    **progress_view.facts(state, agent, task, record),
                    "log_id": record.log_id,
                    "document": _document(kept),
                }
            )
    return found


def _document(kept: bytes | None) -> Any:
    try:
        return msgspec.json.decode(kept) if kept else None
    except (msgspec.MsgspecError, RecursionError):
        return None


def say_foreign(task_id: str, found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        out.say_json({"task": task_id, "progress": found})
        return
    out.note(f"{task_id} is no task of this bus: it is progress of foreign work")
    for one in found:
        out.say(f"PROGRESS {one['agent']}:{one['task']}  told {one['at']}")
        out.say(RULE)
        document = one["document"]
        if document is None:
            out.say("its key is gone, or is no JSON")
        else:
            encoded = msgspec.json.encode(document)
            out.say(msgspec.json.format(encoded, indent=2).decode())
