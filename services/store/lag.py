"""What stood somewhere a while ago, by our own monotonic clock: entry ids do not tell."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from services.runtime.clock import elapsed

T = TypeVar("T")


class Lag(Generic[T]):
    """Remembers values for ``seconds``; ``old`` is the newest that has been there so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: deque[tuple[float, T]] = deque()
        self.old: T | None = None

    def put(self, value: T) -> T | None:
        """Remember ``value`` as of now; returns ``old``, None while nothing is so old."""
        now = elapsed()
        self._kept.append((now, value))
        while self._kept and now - self._kept[0][0] >= self._seconds:
            self.old = self._kept.popleft()[1]
        return self.old

    def forget(self) -> None:
        """What was remembered is of another past."""
        self._kept.clear()
        self.old = None
