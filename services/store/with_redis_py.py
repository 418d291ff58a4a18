"""Connections that ask for more than a plain socket: TLS, the options of a URL behind ``?``, and
whoever Sentinel says is primary.

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
from redis import connection
from redis import exceptions as rex
from redis import sentinel as sync_sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.runtime import urls
from services.runtime.errors import RedisUnavailable
from services.runtime.urls import SentinelUrl
from services.store.address import CONNECT_SECONDS
from services.store.replies import classified, no_answer, refused_login

# redis-py's own types are loose; here they end.
_async_pool: Any = redis.asyncio.ConnectionPool
_sync_pool: Any = redis.ConnectionPool
_async_sentinel: Any = async_sentinel
_sync_sentinel: Any = sync_sentinel
_connection_module: Any = connection
_ONCE, _ONCE_ASYNC = Retry(NoBackoff(), 0), AsyncRetry(NoBackoff(), 0)  # who asks has his own pace
_OPTIONS = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS}
_ASKED_SECONDS = 1.0  # for one sentinel: the next one may be quicker
_TO_SENTINELS = {"socket_timeout": _ASKED_SECONDS, "socket_connect_timeout": _ASKED_SECONDS}


def blocking(url: str, shown: str) -> Any:
    """A connected redis-py connection. Raises RedisUnavailable and RedisUnsuitable."""
    named = urls.sentinel(url)
    with _translated(shown):
        if named is None:
            connection = _sync_pool.from_url(url, retry=_ONCE, **_OPTIONS).make_connection()
            connection.connect()
            return connection
        asked, options = _of_service(named, _ONCE)
        manager = _sync_sentinel.Sentinel(named.hosts, sentinel_kwargs=asked)
        try:
            pool = _sync_sentinel.SentinelConnectionPool(named.service, manager, **options)
            connection = pool.make_connection()
            connection.connect()
        finally:
            for sentinel in manager.sentinels:
                sentinel.close()
        connection.send_command("ROLE")
        _check_primary(shown, connection.read_response())
        return connection


async def asynchronous(url: str, shown: str) -> Any:
    """As ``blocking``, for asyncio."""
    named = urls.sentinel(url)
    with _translated(shown):
        if named is None:
            pool = _async_pool.from_url(url, retry=_ONCE_ASYNC, **_OPTIONS)
            connection = pool.make_connection()
            await connection.connect()
            return connection
        asked, options = _of_service(named, _ONCE_ASYNC)
        manager = _async_sentinel.Sentinel(named.hosts, sentinel_kwargs=asked)
        try:
            pool = _async_sentinel.SentinelConnectionPool(named.service, manager, **options)
            connection = pool.make_connection()
            await connection.connect()
        finally:
            for sentinel in manager.sentinels:
                await sentinel.aclose()
        await connection.send_command("ROLE")
        _check_primary(shown, await connection.read_response())
        return connection


def _of_service(named: SentinelUrl, retry: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for the sentinels themselves (``sentinel_username``, ``sentinel_password``), and for
    the server that they name."""
    options: dict[str, Any] = {**_connection_module.parse_url(named.server), **_OPTIONS}
    options["retry"] = retry
    options["ssl"] = options.pop("connection_class", None) is redis.SSLConnection
    for name in ("host", "port"):
        options.pop(name, None)
    login = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    return {**_TO_SENTINELS, **login, "retry": retry}, options


def _check_primary(shown: str, role: Any) -> None:
    """Raises RedisUnavailable where the sentinels' word is older than a failover."""
    if role[0] not in (b"master", "master"):
        raise RedisUnavailable(
            f"the server that the sentinels at {shown} name is no primary",
            hint="a failover is under way: wait a moment",
        )


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
