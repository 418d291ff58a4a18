"""How what runs for long is ended: by a signal, or by an error that a person reads once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import anyio
from anyio.abc import TaskStatus

from services.runtime.errors import AsbError, CommandRefused

T = TypeVar("T")


async def stop_at_signals(
    stop: anyio.Event,
    at_once: Callable[[], object],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """The first SIGINT or SIGTERM, or a terminal that closes, sets ``stop``; on the next one
    ``at_once`` is called. To be started with ``TaskGroup.start``: who says that it is up can be
    stopped in order from then on."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            if stop.is_set():
                at_once()
            stop.set()


@contextlib.contextmanager
def one_error() -> Generator[None]:
    """A person reads one error, not a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = group.subgroup((AsbError, CommandRefused))
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, AsbError | CommandRefused):
            raise error from group
        raise


async def to_its_end(work: Awaitable[T]) -> T:
    """``work`` to its end, however often we are cancelled meanwhile; then that is heeded."""
    running, cancelled = asyncio.ensure_future(work), False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    result = running.result()
    if cancelled:
        raise asyncio.CancelledError
    return result


def when_stdin_closes(end: Callable[[], object]) -> None:
    """Call ``end`` when the process that started us is gone: then its end of our stdin closes.
    It asks us to stop by a signal; that it went without one means that nobody waits for us."""
    running = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        running.call_soon_threadsafe(end)

    threading.Thread(target=watch, daemon=True).start()
