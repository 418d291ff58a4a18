"""Connections that ask for more than a plain socket: TLS, and the options of a URL behind ``?``.

redis-py knows them all, and makes these connections; requests and replies are then ours. It is
loaded only where somebody needs it: that takes a seventh of a second, more than most commands need
for everything else.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as rex

from services.runtime.errors import RedisUnavailable
from services.store.address import CONNECT_SECONDS
from services.store.replies import classified, no_answer, refused_login

# redis-py's own types are loose; here they end.
_async_pool: Any = redis.asyncio.ConnectionPool
_sync_pool: Any = redis.ConnectionPool
_OPTIONS = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS}


def blocking(url: str, shown: str) -> Any:
    """A connected redis-py connection. Raises RedisUnavailable and RedisUnsuitable."""
    with _translated(shown):
        connection = _sync_pool.from_url(url, **_OPTIONS).make_connection()
        connection.connect()
        return connection


async def asynchronous(url: str, shown: str) -> Any:
    """As ``blocking``, for asyncio."""
    with _translated(shown):
        connection = _async_pool.from_url(url, **_OPTIONS).make_connection()
        await connection.connect()
        return connection


@contextmanager
def _translated(shown: str) -> Generator[None]:
    """Turn redis-py's exceptions into ours, with a hint of what to do next."""
    try:
        yield
    except rex.BusyLoadingError as error:
        raise RedisUnavailable(f"Redis at {shown} is loading", hint="wait a moment") from error
    except rex.AuthenticationError as error:
        raise refused_login(shown, str(error)) from error
    except (rex.ConnectionError, rex.TimeoutError, OSError) as error:
        raise no_answer(shown, error) from error
    except rex.ResponseError as error:
        raise classified(shown, str(error)) from error
