"""Ports for servers of tests, each given to one process of tests on this machine at a time.

A port that the kernel gives and that is closed again may be somebody else's a moment later: another
test's, or the near end of any connection. So they lie below those that connections are given, and
whoever got one holds a lock on its file for as long as he lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

PORTS = range(12_000, 32_768)
_ours: list[int] = []  # descriptors of the locks


def free_port() -> int:
    """A port on which nobody listens, and that no other test is given."""
    folder = Path(tempfile.gettempdir()) / f"asb-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
        if _is_locked(lock) or not _is_free(port):
            os.close(lock)
            continue
        _ours.append(lock)
        return port
    raise AssertionError("no port is free")


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
