"""Two clocks, by name: ``ServerClock.now`` is the server's time in µs, ``elapsed`` is monotonic."""

from __future__ import annotations

import time

STEP_US = 1_000_000  # less than this is no step: clocks are slewed, and replies take their time
# A clock that goes on while the machine sleeps: waking up is no step of the server's clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Seconds of a clock that never steps; only differences mean something."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class ServerClock:
    """The server's time, carried on by our monotonic clock between the replies that tell it.

    So a turn knows its ``now`` without a round trip of its own. The append script compares it with
    the server's TIME and refuses a turn whose clock is off. Between two replies our clock also
    tells how much time really passed, and so a step of the server's.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._last = 0
        self._reported = True
        self.latest = 0  # the latest that the server was seen at, µs
        self.step = (0, 0)  # the last step: by how much, and when it was noticed, µs

    def set(self, server_us: int, sent: float) -> int:
        """A reply to a command sent at ``elapsed() == sent`` carried the server's time. Returns by
        how much its clock has stepped meanwhile, µs.

        It was read between then and now. Where our clock agrees with that it stays: a server that
        stood still for seconds would else move it by half of them.
        """
        earliest = server_us - int(elapsed() * 1_000_000)
        latest = server_us - int(sent * 1_000_000)
        before = self._offset or (earliest + latest) // 2
        self._offset = min(max(before, earliest), latest)
        self.latest = max(self.latest, server_us)
        moved = self._offset - before
        if abs(moved) < STEP_US:
            return 0
        self.step = (moved if self._reported else self.step[0] + moved, self.now())
        self._reported = False
        return moved

    def reported(self, by: int) -> None:
        """The log tells of a step by ``by`` µs: what comes next is another one."""
        self._reported = True
        if abs(self.step[0] - by) < 10 * STEP_US:
            self.step = (0, 0)

    def now(self) -> int:
        """Server time, µs since the epoch. Small corrections never make it run backwards."""
        now = int(elapsed() * 1_000_000) + self._offset
        if self._last - 1_000_000 < now < self._last:
            return self._last
        self._last = now
        return now
