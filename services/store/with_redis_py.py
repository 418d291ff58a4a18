"""Connections that ask for more than a plain socket: TLS, the options of a URL behind ``?``,
whoever Sentinel says is primary, and the nodes of a Cluster.

redis-py knows them all, and makes these connections; requests and replies are then ours. It is
loaded only where somebody needs it: that takes a seventh of a second, more than most commands need
for everything else.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis import asyncio as redis_asyncio
from redis import cluster as sync_cluster
from redis import connection
from redis import exceptions as rex
from redis import sentinel as sync_sentinel
from redis.asyncio import cluster as async_cluster
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.runtime import urls
from services.runtime.errors import RedisUnavailable, RedisUnsuitable
from services.runtime.urls import ClusterUrl, SentinelUrl
from services.store.address import CONNECT_SECONDS, SILENCE_SECONDS
from services.store.replies import classified, no_answer, refused_login

# redis-py's own types are loose; here they end.
_async_pool: Any = redis.asyncio.ConnectionPool
_sync_pool: Any = redis.ConnectionPool
_async_sentinel: Any = async_sentinel
_sync_sentinel: Any = sync_sentinel
_async_cluster: Any = async_cluster
_sync_cluster: Any = sync_cluster
_connection_module: Any = connection
_ONCE, _ONCE_ASYNC = Retry(NoBackoff(), 0), AsyncRetry(NoBackoff(), 0)  # who asks has his own pace
_OPTIONS = {
    "protocol": 2,
    "socket_timeout": SILENCE_SECONDS,  # for what it says and asks before a connection is ours
    "socket_connect_timeout": CONNECT_SECONDS,
}
_ASKED_SECONDS = 1.0  # for one sentinel: the next one may be quicker
_GREETED = {"socket_timeout": SILENCE_SECONDS}  # of a node, once it is known who serves what
_NODE_SECONDS = 2.0  # for one node that is asked who serves what
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
        except sync_sentinel.MasterNotFoundError as error:
            problems = [_problem_of(sentinel) for sentinel in manager.sentinels]
            raise _nobody_named(named, problems) from error
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
        except async_sentinel.MasterNotFoundError as error:
            problems = [await _problem_of_async(sentinel) for sentinel in manager.sentinels]
            raise _nobody_named(named, problems) from error
        finally:
            for sentinel in manager.sentinels:
                await sentinel.aclose()
        await connection.send_command("ROLE")
        _check_primary(shown, await connection.read_response())
        return connection


def _of_service(named: SentinelUrl, retry: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for the sentinels themselves (``sentinel_username``, ``sentinel_password``), and for
    the server that they name. TLS is spoken with all of them or with none."""
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
    secure = {name: value for name, value in options.items() if name.startswith("ssl")}
    return {**_TO_SENTINELS, **login, **secure, "retry": retry}, options


def _problem_of(sentinel: Any) -> Exception | None:
    """Why a sentinel cannot be asked; redis-py does not hand that on."""
    try:
        sentinel.ping()
    except rex.RedisError as error:
        return error
    return None


async def _problem_of_async(sentinel: Any) -> Exception | None:
    try:
        await sentinel.ping()
    except rex.RedisError as error:
        return error
    return None


def _nobody_named(named: SentinelUrl, problems: list[Exception | None]) -> Exception:
    """The error where no sentinel names a primary: because they do not, or cannot be asked."""
    answered = next((problem for problem in problems if problem is None), problems[-1])
    said = f"the sentinels name no primary of {named.service}"
    return answered or rex.ConnectionError(said)


def _check_primary(shown: str, role: Any) -> None:
    """Raises RedisUnavailable where the sentinels' word is older than a failover."""
    if role[0] not in (b"master", "master"):
        raise RedisUnavailable(
            f"the server that the sentinels at {shown} name is no primary",
            hint="a failover is under way: wait a moment",
        )


# -- the nodes of a Cluster ------------------------------------------------------------------------


class Topology:
    """Who serves which slot, as redis-py's RedisCluster reads it of any node; and its connections
    to the nodes, which are named ``host:port``."""

    def __init__(self, named: ClusterUrl, shown: str) -> None:
        self._named, self._shown = named, shown
        self._cluster: Any = None

    async def look(self) -> dict[int, str]:
        """The primary of each slot that has one. Raises RedisUnavailable and RedisUnsuitable."""
        with _translated(self._shown), _of_a_cluster(self._shown):
            if self._cluster is None:
                options = _of_nodes(self._named, _async_cluster.ClusterNode)
                self._cluster = redis_asyncio.RedisCluster.from_url(
                    self._named.server, retry=_ONCE_ASYNC, **options
                )
            manager = self._cluster.nodes_manager
            try:
                await manager.initialize()
            finally:
                for nodes in ("nodes_cache", "startup_nodes"):
                    await manager.aclose(nodes)
        return _primaries(manager)

    async def connection(self, node: str) -> Any:
        """A connected redis-py connection. Raises as ``look``."""
        host, _, port = node.rpartition(":")
        known: Any = next(iter(self._cluster.nodes_manager.startup_nodes.values()))
        asked = {"host": host, "port": int(port), "retry": _ONCE_ASYNC, **_GREETED}
        with _translated(self._shown):
            made = known.connection_class(**{**known.connection_kwargs, **asked})
            await made.connect()
        return made


class BlockingTopology:
    """The same with blocking calls."""

    def __init__(self, named: ClusterUrl, shown: str) -> None:
        self._named, self._shown = named, shown
        self._cluster: Any = None

    def look(self) -> dict[int, str]:
        """As Topology."""
        with _translated(self._shown), _of_a_cluster(self._shown):
            if self._cluster is None:
                options = _of_nodes(self._named, _sync_cluster.ClusterNode)
                self._cluster = _sync_cluster.RedisCluster.from_url(
                    self._named.server, retry=_ONCE, **options
                )
            else:
                self._cluster.nodes_manager.initialize()
        self._cluster.disconnect_connection_pools()
        return _primaries(self._cluster.nodes_manager)

    def connection(self, node: str) -> Any:
        """As Topology."""
        host, _, port = node.rpartition(":")
        manager = self._cluster.nodes_manager
        asked = {**manager.connection_kwargs, **_GREETED}
        with _translated(self._shown):
            client = manager.create_redis_node(host, int(port), **asked)
            made = client.connection_pool.make_connection()
            made.connect()
        return made


def _of_nodes(named: ClusterUrl, node: Any) -> dict[str, Any]:
    # A slot that nobody serves is told of where somebody needs it: the others are served on.
    return {
        **_OPTIONS,
        "socket_timeout": _NODE_SECONDS,
        "startup_nodes": [node(host, port) for host, port in named.hosts],
        "require_full_coverage": False,
    }


def _primaries(manager: Any) -> dict[int, str]:
    slots: Mapping[int, Any] = manager.slots_cache
    return {slot: str(nodes[0].name) for slot, nodes in slots.items() if nodes}


@contextmanager
def _of_a_cluster(shown: str) -> Generator[None]:
    """Raise what stands behind redis-py's one exception for all nodes together."""
    try:
        yield
    except rex.RedisClusterException as error:
        cause = error.__cause__
        if "not enabled" in f"{error} {cause}":
            raise RedisUnsuitable(
                f"Redis at {shown} is no Cluster", hint="redis://HOST:PORT names a single server"
            ) from error
        if isinstance(cause, rex.RedisError):
            raise cause from error
        raise rex.ConnectionError(str(cause or error)) from error
    except IndexError as error:
        raise rex.ConnectionError("no node of the Cluster serves a slot yet") from error


@contextmanager
def _translated(shown: str) -> Generator[None]:
    """Turn redis-py's exceptions into ours, with a hint of what to do next."""
    try:
        yield
    except rex.BusyLoadingError as error:
        raise RedisUnavailable(f"Redis at {shown} is loading", hint="wait a moment") from error
    except rex.AuthenticationError as error:
        raise refused_login(shown, str(error)) from error
    except rex.TimeoutError as error:
        raise no_answer(shown, TimeoutError(str(error))) from error
    except (rex.ConnectionError, rex.InvalidResponse, OSError) as error:
        raise no_answer(shown, error) from error
    except rex.ResponseError as error:
        raise classified(shown, str(error)) from error
    except TypeError as error:  # what stands behind ? is handed on by name
        raise RedisUnsuitable(
            f"the options of {shown} are not known: {error}",
            hint="those of a connection of redis-py stand behind ?",
        ) from error
