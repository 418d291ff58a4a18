"""The newest progress document of one agent and task."""

from __future__ import annotations

import msgspec

from events.document import ENDED, Totals


class Progress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The newest document of one agent and task.

    It lies at ``log_id``; ``digest`` names it, keyed by a secret of the bus. ``seen`` is the
    running maximum of the totals told since ``attempt`` (0: foreign work) began, ``charged`` what
    of it became usage and ``nanos`` what that cost.
    """

    log_id: str
    at: int
    digest: str = ""
    attempt: int = 0
    status: str = ""
    percent: int | None = None
    seen: Totals = Totals()
    charged: tuple[int, int, int, int] = (0, 0, 0, 0)
    nanos: int = 0
    flag: str = ""
    unpriced: bool = False  # some of it was charged without a known price
    completed: bool = False  # foreign work: it was called done, and counts as a task

    @property
    def ended(self) -> bool:
        return self.status in ENDED
