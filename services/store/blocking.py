"""A connection to Redis for whoever waits for each answer."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hiredis

from services.store import address
from services.store.address import CONNECT_SECONDS, SILENCE_SECONDS, Address
from services.store.replies import (
    PING,
    Command,
    has_changed_role,
    limit_of,
    no_answer,
    packed,
    refused_opening,
)

_hiredis: Any = hiredis
_READ_BYTES = 1 << 20


class Blocking:
    """Requests out, replies back in order. After any error it is closed for good: a late reply must
    never answer another request."""

    def __init__(self, made: socket.socket, keeper: Any = None) -> None:
        self._socket = made
        self._keeper = keeper  # what else would close the socket when collected
        self._reader: Any = _hiredis.Reader()
        self._buffer = bytearray(_READ_BYTES)
        self._leads_elsewhere = False

    @classmethod
    def open(cls, url: str, shown: str) -> Blocking:
        """Connect and log in. Raises RedisUnavailable and RedisUnsuitable."""
        place = address.plain(url)
        if place is None:
            from services.store import with_redis_py

            return cls.taken_over(with_redis_py.blocking(url, shown))
        try:
            opened = cls(_connected(place))
            try:
                opened._begin(place, shown)
            except BaseException:
                opened.close()
                raise
        except (OSError, hiredis.ProtocolError) as error:
            raise no_answer(shown, error) from error
        return opened

    @classmethod
    def taken_over(cls, connection: Any) -> Blocking:
        """The socket of a connection that redis-py made."""
        return cls(connection._sock, connection)

    def _begin(self, place: Address, shown: str) -> None:
        for command in place.opening:
            (reply,) = self.ask(packed([command]), 1)
            if isinstance(reply, Exception):
                raise refused_opening(shown, command, str(reply))

    def ask(self, packed: bytes, count: int, within: float = SILENCE_SECONDS) -> list[Any]:
        """Write ``packed``; its ``count`` replies, errors among them as values.

        Raises OSError when the connection is lost or nothing moves ``within`` seconds.
        """
        self.send(packed, within)
        return [self.receive() for _ in range(count)]

    def send(self, packed: bytes, within: float = SILENCE_SECONDS) -> None:
        """The first half of ``ask``; each reply is then to be received."""
        self._socket.settimeout(within)
        left = memoryview(packed)
        while left:  # `sendall` would count the time of all of it
            left = left[self._socket.send(left) :]

    def receive(self) -> Any:
        """The next reply. Raises as ``ask``."""
        while (reply := self._reader.gets()) is False:
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise ConnectionResetError("the connection was closed")
            self._reader.feed(self._buffer, 0, size)
        if isinstance(reply, hiredis.ReplyError) and has_changed_role(reply):
            self._leads_elsewhere = True
        return reply

    def next_pushed(self) -> Any:
        """The next message, where a channel is listened to; who has none for long is asked whether
        he is there. Raises as ``ask``."""
        while True:
            try:
                reply = self.receive()
            except TimeoutError:
                self.send(packed([PING]))
                reply = self.receive()
            if isinstance(reply, Exception) or reply[0] != b"pong":
                return reply

    @property
    def is_open(self) -> bool:
        """Whether the next request may go here: nothing has come unasked, not even the end, and
        nobody has answered that he is no primary."""
        if self._leads_elsewhere:
            return False
        looking = select.poll()
        looking.register(self._socket, select.POLLIN)
        return not looking.poll(0)

    def close(self) -> None:
        self._socket.close()


class Pool:
    """The connections to one server. Threads may share it: each call has one to itself. ``opened``
    makes them."""

    primaries: tuple[str, ...] = ()  # as of Wires

    def __init__(self, opened: Callable[[], Blocking], connection: Blocking | None = None) -> None:
        """``connection``: one that is there already."""
        self._opened = opened
        self._idle = [] if connection is None else [connection]

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to ``commands``, errors as values. Raises OSError and hiredis.ProtocolError
        where the connection is lost or nothing comes, and as ``Blocking.open``."""
        connection = self.connected()
        try:
            replies = connection.ask(packed(commands), len(commands), limit_of(commands))
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return replies

    def chain(
        self, first: Sequence[Command], after: Callable[[list[Any]], Sequence[Command]]
    ) -> Iterator[list[Any]]:
        """As SyncClient.chain, errors as values. Raises as ``ask``."""
        commands = first
        connection, awaited = self.connected(), True
        try:
            connection.send(packed(first))
            while commands:
                replies = [connection.receive() for _ in commands]
                awaited = False
                commands = after(replies)
                if commands:
                    awaited = True
                    connection.send(packed(commands))
                yield replies
        finally:
            if awaited:  # the replies are for nobody
                connection.close()
            else:
                self._idle.append(connection)

    def everywhere(self, command: Command) -> list[Any]:
        """As Client.everywhere."""
        return self.ask((command,))

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """As Client.together."""
        return [list(keys)]

    def connected(self) -> Blocking:
        """A connection that nobody else has."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return self._opened()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _connected(place: Address) -> socket.socket:
    if place.path:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(CONNECT_SECONDS)
        try:
            made.connect(place.path)
        except OSError:
            made.close()
            raise
        return made
    made = socket.create_connection((place.host, place.port), CONNECT_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
