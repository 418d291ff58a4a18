"""A coroutine that begins at once, wherever that is, and is awaited by a task later.

A task of its own would begin at the loop's next round (`asyncio.eager_task_factory` mends that from
Python 3.12 on). What it does before it first waits must not ask for the task it runs in: no
timeout, no lock that is held.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """``work``, run up to where it first has to wait; awaiting it goes on from there."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._waits_for: Any = None
        self._end: BaseException | None = None  # how it ended, where it never had to wait
        try:
            self._waits_for = work.send(None)
        except BaseException as end:
            self._end = end

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            if self._end is not None:
                raise self._end
            while True:
                try:
                    yield self._waits_for
                except BaseException as error:
                    self._waits_for = self._work.throw(error)
                else:
                    self._waits_for = self._work.send(None)
        except StopIteration as ended:
            return ended.value
