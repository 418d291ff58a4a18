"""What an id may be that no task has: rejected, still at an intake, or progress of foreign work."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from projections import progress_view
from projections.state import State
from services.client.bus import Bus
from services.client.dead_letters import dead_letters
from services.client.follow import story
from services.client.story import status_of
from services.runtime.errors import Refused


def unknown(bus: Bus, state: State, task_id: str) -> Refused:
    """Why there is no such task: refused, not yet taken in, or never heard of."""
    for letter in dead_letters(bus):
        if letter.entry == task_id or f"{letter.intake}.{letter.entry}".endswith(f":{task_id}"):
            return Refused(
                f"task {task_id} was refused: {letter.error}",
                hint="correct it and submit it again",
            )
    intake = _intake_of(bus, task_id)
    if intake is None:
        return Refused(f"there is no task {task_id}", hint="`asb tasks` lists them")
    if intake == bus.keys.main_intake or intake in state.intakes:
        return Refused(
            f"task {task_id} waits at the intake {intake}: no engine has taken it in yet",
            hint="`asb up` or `asb service engine` runs one",
        )
    name = intake.removeprefix(bus.keys.main_intake + ":")
    return Refused(
        f"task {task_id} stands at the intake {intake}, which nobody opened: it is not read",
        hint=f"`asb acl {name}` opens the intake of {name}",
    )


def not_open(bus: Bus, state: State, task_id: str) -> Refused | None:
    """Why nothing can be asked of this task that goes on; None where it is open."""
    if task_id in state.tasks:
        return None
    events = story(bus, task_id)
    if not events:
        return unknown(bus, state, task_id)
    return Refused(
        f"task {task_id} has ended: it is {status_of(events)}",
        hint="what has ended stays as it is; nothing was done",
    )


def _intake_of(bus: Bus, task_id: str) -> str | None:
    """The intake at which this entry stands: of named intakes ``NAME.ENTRY`` is understood, too."""
    name, _, entry = task_id.rpartition(".")
    if not re.fullmatch(r"\d{1,19}-\d{1,19}", entry):
        return None
    intakes = [bus.keys.intake(name)] if name else [bus.keys.main_intake, *_named_intakes(bus)]
    return next((intake for intake in intakes if _stands_at(bus, intake, entry)), None)


def _stands_at(bus: Bus, intake: str, entry: str) -> bool:
    if bus.client.call("TYPE", intake) != b"stream":
        return False
    return bool(bus.client.call("XRANGE", intake, entry, entry))


def _named_intakes(bus: Bus) -> list[str]:
    """All intakes but the shared one, opened or not."""
    keys = bus.client.scan(bus.keys.intake("*"), "stream")
    return sorted({key.decode("utf-8", "replace") for key in keys})


def foreign(bus: Bus, state: State, task_id: str) -> list[dict[str, Any]]:
    """The progress documents that agents told of foreign work of this name; [] where none did."""
    rows: list[dict[str, Any]] = []
    for name, record in state.progress.items():
        agent, _, task = name.partition(":")
        if task_id in (task, name):
            kept = bus.client.call("GET", bus.keys.progress(agent, task))
            rows.append(
                {
                    **progress_view.facts(state, agent, task, record),
                    "log_id": record.log_id,
                    "document": _document(kept),
                }
            )
    return rows


def _document(kept: bytes | None) -> Any:
    try:
        return msgspec.json.decode(kept) if kept else None
    except (msgspec.MsgspecError, RecursionError):
        return None
