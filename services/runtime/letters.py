"""Writes dead letters: what intake refused, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from events.keys import Keys
from services.runtime.client import Client
from services.runtime.points import point
from services.runtime.scripts import Argument, script
from services.turn import Refused

BATCH = 50
FIELDS_MAX = 1_000  # a dead letter keeps so many: Lua cannot hand on 8,000 values at once


async def write_letters(client: Client, keys: Keys, refused: Sequence[Refused]) -> None:
    """Dead letters are written before the turn, so a crash between loses none; the door and entry
    id make a repeat harmless. Raises as Client.call."""
    for start in range(0, len(refused), BATCH):
        batch = refused[start : start + BATCH]
        args: list[Argument] = [len(batch)]
        for one in batch:
            fields = one.entry.fields[: 2 * FIELDS_MAX]
            door, entry = one.entry.door, one.entry.id
            mark = f"{door} {entry}" if one.ahead else door
            args += (door, entry, mark, one.error, len(fields) // 2, *fields)
        await script("deadletter")(client, [keys.deadletter, keys.deadletter_marks], args)
        point("deadletter.after")
