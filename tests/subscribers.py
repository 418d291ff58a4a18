"""Who listens to channels in tests: redis-py itself, not our own client."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio

_sync: Any = redis.Redis
_async: Any = redis.asyncio.Redis


def subscriber(url: str) -> Any:
    """A redis-py PubSub."""
    return _sync.from_url(url, protocol=2).pubsub()


def async_subscriber(url: str) -> Any:
    """A redis-py PubSub for asyncio."""
    return _async.from_url(url, protocol=2).pubsub()
