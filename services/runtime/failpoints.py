"""Named points at which a crash test has this process kill itself. In production none is set.

``ASB_TEST_DIE_AT=append.after:3`` dies at the third time the point ``append.after`` is reached.
"""

from __future__ import annotations

import os
import signal

from services.runtime.settings import set_by_tests

_name, _, _count = set_by_tests("DIE_AT").partition(":")
_left = int(_count or 1)


def point(name: str) -> None:
    """This process is at ``name``; it ends here, as by ``kill -9``, if a test asked for it."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
