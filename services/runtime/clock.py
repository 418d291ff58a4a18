"""Two clocks, by name: ``ServerClock.now`` is the server's time in µs, ``elapsed`` is monotonic."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Seconds of a clock that never steps; only differences mean something."""
    return time.monotonic()


class ServerClock:
    """The server's time, carried on by our monotonic clock between the replies that tell it.

    So a turn knows its ``now`` without a round trip of its own. The append script compares it with
    the server's TIME and refuses a turn whose clock is off.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._last = 0

    def told(self, server_us: int, sent: float) -> None:
        """A reply to a command sent at ``elapsed() == sent`` carried the server's time.

        It was read between then and now. Where our clock agrees with that it stays: a server that
        stood still for seconds would else move it by half of them.
        """
        earliest = server_us - int(time.monotonic() * 1_000_000)
        latest = server_us - int(sent * 1_000_000)
        if not self._offset:
            self._offset = (earliest + latest) // 2
        self._offset = min(max(self._offset, earliest), latest)

    def now(self) -> int:
        """Server time, µs since the epoch. Small corrections never make it run backwards."""
        now = int(time.monotonic() * 1_000_000) + self._offset
        if self._last - 1_000_000 < now < self._last:
            return self._last
        self._last = now
        return now
