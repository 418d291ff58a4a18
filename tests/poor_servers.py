"""A real server that is hard to reach: far away, slow, or behind a line that loses replies."""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tests.servers import RedisServer

FAR_S = 0.02  # each way
LOST_EVERY = 150  # reply that is lost, together with its connection
STOPPED_S, GOING_S = 0.02, 0.005  # a slow one gets a fifth of the time


class PoorServer:
    """A server whose URL leads over a bad line. ``far_s``: how long each way takes; ``lost_every``:
    of so many replies one is lost, the command done, and its connection with it."""

    def __init__(self, folder: Path, *, far_s: float = 0.0, lost_every: int = 0) -> None:
        self.server = RedisServer(folder).start()
        self._far_s = far_s
        self._replies, self._lost_every = itertools.count(1), lost_every
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def call(self, *command: str | bytes | int | float) -> Any:
        """One command, past the bad line; raw reply."""
        return self.server.call(*command)

    def restart(self) -> None:
        self.server.restart()

    def stop(self) -> None:
        self._listener.close()
        self.server.stop()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.server.port))
        except OSError:
            client.close()
            return
        for source, target, loses in ((client, server, False), (server, client, True)):
            line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=self._take, args=(source, line, loses), daemon=True).start()
            threading.Thread(target=_give, args=(line, target, source), daemon=True).start()

    def _take(
        self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]], loses: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if loses and self._lost_every and next(self._replies) % self._lost_every == 0:
                    self.lost += 1
                    break
                line.put((time.monotonic() + self._far_s, data))
        line.put((time.monotonic() + self._far_s, b""))


def _give(
    line: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket, source: socket.socket
) -> None:
    """Hand on what comes, in its time; at the end of it both sides are closed."""
    over = threading.Event()  # which never comes: a pause
    with contextlib.suppress(OSError):
        while True:
            due, data = line.get()
            over.wait(max(0.0, due - time.monotonic()))
            if not data:
                break
            target.sendall(data)
    for each in (target, source):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class SlowServer(RedisServer):
    """It gets a fifth of the time of a processor."""

    def start(self) -> SlowServer:
        super().start()
        self._over = threading.Event()
        self._starving = threading.Thread(target=self._starve)
        self._starving.start()
        return self

    def stop(self) -> None:
        self._at_ease()
        super().stop()

    def kill9(self) -> None:
        self._at_ease()
        super().kill9()

    def _at_ease(self) -> None:
        self._over.set()
        self._starving.join()

    def _starve(self) -> None:
        process = self.process
        while process is not None and not self._over.wait(GOING_S):
            process.send_signal(signal.SIGSTOP)
            self._over.wait(STOPPED_S)
            process.send_signal(signal.SIGCONT)
