"""What a scope used, by hour and minute, and what is held for it; which levels were said of it."""

from __future__ import annotations

import msgspec


class Bucket(msgspec.Struct, array_like=True, gc=False):
    """Settled use of one scope in one minute or hour. ``passed``: when that was changed last, in
    minutes of the time that has passed without a jump."""

    tokens: int = 0
    nanos: int = 0
    tasks: int = 0
    passed: int = 0


class Scope(msgspec.Struct, array_like=True, gc=False):
    """One scope: its buckets by hour and minute since the epoch, and what is held now."""

    hours: dict[int, Bucket] = {}
    minutes: dict[int, Bucket] = {}
    held_tokens: int = 0
    held_nanos: int = 0
    held_tasks: int = 0


class Raised(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The window instance (its start, µs), the highest level said for it, and where that stands.

    Of rolling windows also: until when (µs) the scope was last at each level from WARNING on, or
    above it; known up to ``seen``.
    """

    instance: int
    level: int
    log_id: str = ""
    seen: int = 0
    over: tuple[int, ...] = ()
