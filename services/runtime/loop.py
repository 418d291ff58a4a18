"""The event loop: uvloop where there is one, asyncio's own elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


def run(work: Callable[..., Awaitable[T]], *args: Any) -> T:
    """``await work(*args)`` in a new event loop; its result.

    uvloop takes about a sixth off the engine's CPU per task (`make bench`).
    """
    quick = importlib.util.find_spec("uvloop") is not None
    return anyio.run(work, *args, backend="asyncio", backend_options={"use_uvloop": quick})
