"""Which dispatches a session has taken, so that a repeated entry of its inbox is known."""

from __future__ import annotations

from services.worker.attempt import key_of

REMEMBERED = 100_000  # dispatches; twice as many at most are kept


class Dispatches:
    """Those of one session.

    A dispatch is known by task, attempt and its place on the log: where the log went back the same
    attempt may be dispatched anew, and of the one before the log knows nothing.
    """

    def __init__(self) -> None:
        self._taken: set[bytes] = set()
        self._before: set[bytes] = set()

    def is_new(self, fields: dict[bytes, bytes]) -> bool:
        """Whether an entry of the inbox is no repeat; it is one from then on."""
        dispatch = key_of(fields) + b"\0" + fields.get(b"log", b"")
        if dispatch in self._taken or dispatch in self._before:
            return False
        self._taken.add(dispatch)
        if len(self._taken) >= REMEMBERED:
            self._before, self._taken = self._taken, set()
        return True
