"""What a projector is: it folds nothing itself, it writes what follows from events. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from events.envelope import Event
from projections.state import State


class Projector(Protocol):
    """Writes what is not the log. ``feed`` takes committed events in order and must not wait;
    ``restored`` is told when the state was rebuilt; ``run`` does the writing."""

    def feed(self, events: Sequence[Event], state: State) -> None: ...
    def restored(self, state: State) -> None: ...
    async def run(self) -> None: ...


class Stats(msgspec.Struct):
    """What a host did since it started."""

    turns: int = 0
    events: int = 0
    conflicts: int = 0
    refused: int = 0
    rebuilds: int = 0
    outages: int = 0
