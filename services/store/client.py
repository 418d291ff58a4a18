"""The one place that talks to redis-py.

Replies come back raw (bytes, ints, lists): decoding once, where the meaning is known, is what
makes replay fast, and it keeps redis-py's many reply shapes out of the rest of the code.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis import exceptions as rex

from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.runtime.urls import redacted
from services.store.connection import Wire

# redis-py's own types are loose; here they end.
_async_redis: Any = redis.asyncio.Redis
_sync_redis: Any = redis.Redis
_hiredis: Any = hiredis

Command = Sequence[str | bytes | int | float]
CONNECT_SECONDS = 5.0
REPLY_SECONDS = 30.0  # a plain command; blocking reads have connections without this bound


def wrong_type(keys: Mapping[str, str]) -> CommandRefused:
    """The error for a key that holds something else than asb keeps there, among ``keys``, which
    are given with the types they are of."""
    named = " or ".join(f"{key} (a {kind})" for key, kind in keys.items())
    return CommandRefused(f"{WRONG_TYPE} {named} is not what asb keeps there")


WRONG_TYPE = "WRONGTYPE"  # how Redis begins the error
WRONG_TYPE_HINT = (
    "somebody wrote something else there: look at it (redis-cli TYPE), then RENAME or DEL it; "
    "`asb doctor` shows every such key"
)

_RETRY_MAY_HELP = {
    "LOADING": "it is still loading its data: wait a moment",
    "READONLY": "it is a read-only replica: point --redis at the primary",
    "MISCONF": "it cannot persist to disk: free disk space, then try again",
    "OOM": "it is full: raise maxmemory, or trim old data",
    "MASTERDOWN": "its primary is down: wait for the failover",
    "CLUSTERDOWN": "the cluster is down: wait, or repair it",
    "TRYAGAIN": "the cluster is moving this slot: wait a moment",
    "UNBLOCKED": "it has changed its role: wait for the failover",
    "BUSY": "a script is blocking it: wait, or SCRIPT KILL",
}
_WILL_NOT_HELP = {
    "NOAUTH": "it wants a password: put it into the URL, redis://:PASSWORD@HOST",
    "WRONGPASS": "user or password is wrong: check the URL",
    "NOPERM": "this Redis user may not do that: see `asb acl`",
}


def _is_wrong_type(command: Command, error: Exception) -> bool:
    """Whether the key of a plain command is to be named; a script's keys are its caller's."""
    return str(error).startswith(WRONG_TYPE) and command[0] not in ("EVALSHA", "EVAL", "TYPE")


def _key_of(command: Command) -> str | bytes | int | float:
    """The (first) key of a plain command."""
    if "STREAMS" in command:
        return command[list(command).index("STREAMS") + 1]
    return command[2] if command[0] in ("XINFO", "MEMORY", "OBJECT") else command[1]


def _name(key: str | bytes | int | float) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


_SCRIPT_ERROR = re.compile(r"(?:ERR )?Error running script .* -([A-Z]+) ")


@contextmanager
def translated(url: str) -> Generator[None]:
    """Turn redis-py's exceptions into ours, with a hint of what to do next."""
    try:
        yield
    except rex.BusyLoadingError as error:
        raise RedisUnavailable(
            f"Redis at {url} is loading", hint=_RETRY_MAY_HELP["LOADING"]
        ) from error
    except rex.AuthenticationError as error:
        raise RedisUnsuitable(
            f"Redis at {url} refused the login: {error}", hint=_WILL_NOT_HELP["WRONGPASS"]
        ) from error
    except (rex.ConnectionError, rex.TimeoutError, OSError) as error:
        raise RedisUnavailable(
            f"no Redis answers at {url}: {error}",
            hint="start it, or run `asb up` without --redis for an embedded one",
        ) from error
    except rex.ResponseError as error:
        raise _classified(url, error) from error


def _classified(url: str, error: Exception) -> Exception:
    text = str(error)
    inner = _SCRIPT_ERROR.match(text)  # 6.2 wraps what a command in a script answered
    code = inner[1] if inner else text.split(" ", 1)[0]
    if isinstance(error, rex.ReadOnlyError):
        code = "READONLY"
    elif isinstance(error, rex.OutOfMemoryError):
        code = "OOM"
    elif isinstance(error, rex.NoPermissionError):
        code = "NOPERM"
    if code in _RETRY_MAY_HELP:
        return RedisUnavailable(f"Redis at {url}: {text}", hint=_RETRY_MAY_HELP[code])
    if code in _WILL_NOT_HELP:
        return RedisUnsuitable(f"Redis at {url}: {text}", hint=_WILL_NOT_HELP[code])
    return CommandRefused(text)


class Client:
    """An asyncio client with raw replies: one wire for commands, which share it in order, and one
    for each that may block. Connections (URL, login, TLS) are redis-py's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = redacted(url)
        with translated(self.shown):
            self._redis: Any = _async_redis.from_url(
                url,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=None,
            )
        self._connecting = asyncio.Lock()
        self._wire: Wire | None = None
        self._idle: list[Wire] = []  # for commands that block

    async def call(self, *command: str | bytes | int | float) -> Any:
        """One command; its raw reply.

        Raises RedisUnavailable, RedisUnsuitable or, for an error that is about this very
        command, CommandRefused. After RedisUnavailable the outcome is unknown.
        """
        reply = (await self._ask(_hiredis.pack_command(command), 1))[0]
        if isinstance(reply, Exception) and _is_wrong_type(command, reply):
            raise wrong_type(await self.types((_key_of(command),))) from reply
        return self._checked(reply)

    async def types(self, keys: Iterable[str | bytes | int | float]) -> dict[str, str]:
        """The type of each key that is there."""
        names = [_name(key) for key in keys]
        kinds = await self.all(("TYPE", name) for name in names)
        pairs = zip(names, kinds, strict=True)
        return {name: kind.decode() for name, kind in pairs if kind != b"none"}

    async def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Many commands in one round trip, not a transaction. A refused one yields its
        CommandRefused in place; only a lost connection raises."""
        packed: list[bytes] = [_hiredis.pack_command(tuple(command)) for command in commands]
        if not packed:
            return []
        replies = await self._ask(b"".join(packed), len(packed))
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    async def all(self, commands: Iterable[Command]) -> list[Any]:
        """As ``pipeline``, for reads that need every answer: a refused one raises as ``call``."""
        asked = [tuple(command) for command in commands]
        replies = await self.pipeline(asked)
        for command, reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception) and _is_wrong_type(command, reply):
                raise wrong_type(await self.types((_key_of(command),))) from reply
        return [self._checked(reply) for reply in replies]

    async def block(self, *command: str | bytes | int | float) -> Any:
        """A command that may block for long (``XREAD … BLOCK``); it has no reply timeout."""
        with translated(self.shown):
            wire = self._idle.pop() if self._idle else None
            if wire is None or not wire.is_open:
                wire = await Wire.open(self._redis.connection_pool)
            try:
                reply = (await wire.ask(_hiredis.pack_command(command), 1))[0]
            except BaseException:
                wire.close()  # the command may still be under way, for nobody
                raise
        self._idle.append(wire)
        if isinstance(reply, Exception) and _is_wrong_type(command, reply):
            raise wrong_type(await self.types((_key_of(command),))) from reply
        return self._checked(reply)

    async def _ask(self, packed: bytes, count: int) -> list[Any]:
        with translated(self.shown):
            wire = self._wire
            if wire is None or not wire.is_open:
                wire = await self._connected()
            return await wire.ask(packed, count, REPLY_SECONDS)

    async def _connected(self) -> Wire:
        async with self._connecting:
            if self._wire is None or not self._wire.is_open:
                self._wire = await Wire.open(self._redis.connection_pool)
            return self._wire

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, Exception):
            raise _classified(self.shown, reply) from reply
        return reply

    def pubsub(self) -> Any:
        """A redis-py PubSub on a connection without reply timeout."""
        return self._redis.pubsub()

    async def close(self) -> None:
        for wire in (self._wire, *self._idle):
            if wire is not None:
                wire.close()
        self._wire, self._idle = None, []
        await self._redis.aclose()


class SyncClient:
    """The same with blocking calls: for the CLI, bulk submission and replay."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = redacted(url)
        with translated(self.shown):
            self._redis: Any = _sync_redis.from_url(
                url,
                protocol=2,
                socket_timeout=REPLY_SECONDS,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=None,
            )
        self._redis.response_callbacks.clear()

    def call(self, *command: str | bytes | int | float) -> Any:
        """As Client.call."""
        try:
            with translated(self.shown):
                return self._redis.execute_command(*command)
        except CommandRefused as error:
            if not _is_wrong_type(command, error):
                raise
            with translated(self.shown):
                key = _key_of(command)
                kind: bytes = self._redis.execute_command("TYPE", key)
            raise wrong_type({_name(key): kind.decode()}) from error

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """As Client.pipeline."""
        with translated(self.shown):
            pipe = self._redis.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = pipe.execute(raise_on_error=False)
        return [CommandRefused(str(r)) if isinstance(r, Exception) else r for r in replies]

    def pubsub(self) -> Any:
        return self._redis.pubsub()

    def close(self) -> None:
        self._redis.close()
