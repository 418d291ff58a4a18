"""Dead letters: what an intake stream held and the engine rejected, kept within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from events.keys import Keys
from services.decider import Rejection
from services.runtime.failpoints import point
from services.runtime.settings_types import DeadLetterSettings
from services.store.client import Client
from services.store.scripts import Argument, script

BATCH = 50


FIELDS_MAX = 1_000  # Lua cannot hand on 8,000 values at once


ERROR_MAX = 2_000  # characters


MARKS_MAX = 10_000


class DeadLetters:
    """Writes them. The oldest go where there are too many, or too many bytes of them, and are
    counted; of a long entry the beginning is kept, and how long it was."""

    def __init__(
        self, client: Client, keys: Keys, bounds: DeadLetterSettings | None = None
    ) -> None:
        self._client, self._keys = client, keys
        self._bounds = bounds or DeadLetterSettings()
        self.dropped = 0  # of all that were ever written to this bus, as last heard

    async def write(self, refused: Sequence[Rejection]) -> None:
        """Each once: the mark of its intake makes a repeat harmless. Raises RedisUnavailable."""
        for start in range(0, len(refused), BATCH):
            batch = refused[start : start + BATCH]
            bounds = self._bounds
            args: list[Argument] = [len(batch), bounds.max_count, bounds.max_bytes, MARKS_MAX]
            for letter in batch:
                args += self._letter(letter)
            keys = self._keys
            names = [keys.deadletter, keys.deadletter_marks, keys.deadletter_dropped]
            self.dropped = int(await script("deadletter")(self._client, names, args))
            point("deadletter.after")

    def _letter(self, letter: Rejection) -> list[Argument]:
        entry = letter.entry
        mark = f"{entry.intake} {entry.id}" if letter.back_to else entry.intake
        fields = cut(entry.fields, self._bounds.entry_max_bytes)
        size = letter.size or sum(map(len, entry.fields))
        error = letter.error[:ERROR_MAX]
        return [entry.intake, entry.id, mark, error, size, len(fields) // 2, *fields]

    async def forget(self, intake: str, entries: Iterable[str]) -> None:
        """These entries left their intake: they cannot be read from it again."""
        marks = [f"{intake} {entry}" for entry in entries]
        await self._client.call("HDEL", self._keys.deadletter_marks, *marks)


def cut(fields: Sequence[bytes], bound: int) -> list[bytes]:
    """Names and values up to ``most`` bytes in all, the last one cut short; none without the
    other."""
    kept: list[bytes] = []
    room = bound
    for part in fields[: 2 * FIELDS_MAX]:
        if room <= 0 and len(kept) % 2 == 0:
            break
        kept.append(part[: max(room, 0)])
        room -= len(part)
    return kept
