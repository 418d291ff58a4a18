"""Sums of what was spent, what estimates learnt from it, and what of it was odd."""

from __future__ import annotations

import msgspec


class Cell(msgspec.Struct, array_like=True, gc=False):
    """Sums of one combination. ``tokens`` are counted tokens, ``nanos`` nano-dollars."""

    tokens: int = 0
    nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated_tokens: int = 0
    completed: int = 0
    failed: int = 0
    disputed_tokens: int = 0  # reported beyond the plausibility bound, and charged to nobody
    disputed_nanos: int = 0

    def add(self, other: Cell) -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    def negative(self) -> Cell:
        return Cell(*(-getattr(self, field) for field in self.__struct_fields__))


class Flagged(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one agent told: how many flags, when the last (µs), at which event, and what it says."""

    count: int = 0
    at: int = 0
    log_id: str = ""
    flag: str = ""


class Learnt(msgspec.Struct, array_like=True, gc=False):
    """What attempts of one kind and model used, against what was held for them."""

    samples: int = 0
    tokens: dict[int, int] = {}  # bucket -> attempts
    nanos: dict[int, int] = {}
    held_tokens: int = 0
    used_tokens: int = 0
    error_tokens: int = 0  # sum of |used - held|
    overruns: int = 0


class Issued(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest report of a day. ``version`` 0: its day was over before a fact of it came.

    ``at`` is when it was issued and ``late_at`` when the first fact after it came, µs, 0: none.
    ``log_id`` is the place of the event.
    """

    version: int = 0
    at: int = 0
    log_id: str = ""
    late_at: int = 0
