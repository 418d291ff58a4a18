"""What an attempt was charged: when, under which model, and what of it is disputed."""

from __future__ import annotations

import msgspec

Parts = tuple[int, int, int, int]  # input, output, cache reads, cache writes
NO_PARTS: Parts = (0, 0, 0, 0)


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Charged at ``at`` (µs) under ``model``; ``day_at`` as in a Charge."""

    at: int
    model: str
    tokens: int
    nanos: int
    day_at: int = 0


class ChargedAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt that has ended, or one report of foreign work, was charged.

    ``at`` and ``model`` are where it ended; ``estimated_tokens`` what of it nobody measured.
    """

    at: int
    agent: str = ""
    model: str = ""
    worker: str = ""
    project: str = ""
    kind: str = ""
    marks: tuple[Mark, ...] = ()
    parts: Parts = NO_PARTS
    estimated_tokens: int = 0
    disputed_tokens: int = 0
    disputed_nanos: int = 0
    task: str = ""
    attempt: int = 0

    @property
    def tokens(self) -> int:
        return sum(mark.tokens for mark in self.marks)

    @property
    def nanos(self) -> int:
        return sum(mark.nanos for mark in self.marks)

    @property
    def is_disputed(self) -> bool:
        return bool(self.disputed_tokens or self.disputed_nanos)

    @property
    def newest(self) -> Mark:
        """Where more of it is charged."""
        return self.marks[-1] if self.marks else Mark(self.at, self.model, 0, 0)
