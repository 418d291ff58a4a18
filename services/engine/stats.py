"""What a host did since it started."""

from __future__ import annotations

import msgspec


class Stats(msgspec.Struct):
    """Counters of one host. ``conflicts``: turns decided again, for another had appended."""

    turns: int = 0
    events: int = 0
    conflicts: int = 0
    refused: int = 0
    rebuilds: int = 0
    outages: int = 0
