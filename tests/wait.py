"""Waiting in tests: for a condition, never for a time. The one place in tests that sleeps."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import anyio

T = TypeVar("T")
POLL_S = 0.005
SLACK = 4  # limits are those of a quiet machine; what works beside the tests stretches them


async def wait_until(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]],
    within: float = 30.0,
    what: str = "",
) -> T:
    """The first true value of ``predicate`` (sync or async); fails where it takes much longer than
    ``within`` seconds.

    The failure shows the value seen last. An exception of the predicate ends the wait.
    """
    deadline = time.monotonic() + within * SLACK
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return cast("T", value)
        if time.monotonic() > deadline:
            raise AssertionError(_failure(predicate, within, what, value))
        await anyio.sleep(POLL_S)


async def stays(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], during: float, what: str = ""
) -> None:
    """Fails as soon as ``predicate`` (sync or async) is not true, within ``during`` seconds.

    For "nothing happens": keep ``during`` short, every run of the tests pays it in full.
    """
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        assert value, f"{what or 'the condition'}: no longer, last seen: {value!r}"
        await anyio.sleep(POLL_S)


def wait_blocking(predicate: Callable[[], T], within: float = 30.0, what: str = "") -> T:
    """`wait_until` for tests without an event loop."""
    deadline = time.monotonic() + within * SLACK
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(_failure(predicate, within, what, value))
        time.sleep(POLL_S)
    return value


def _failure(predicate: object, within: float, what: str, value: object) -> str:
    what = what or getattr(predicate, "__name__", "the condition")
    return f"{what}: not within {within * SLACK:g} s; last seen: {value!r}"
