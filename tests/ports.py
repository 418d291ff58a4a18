"""Ports and networks of tests, each given to one process of tests on this machine at a time.

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

from services.store.redis_server import is_free

PORTS = range(12_000, 32_768)
NETWORKS = range(1, 250)
_ours: list[int] = []  # descriptors of the locks


def free_port() -> int:
    """A port on which nobody listens, and that no other test is given."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if is_free(port) and _claimed(f"port-{port}"):
            return port
    raise AssertionError("no port is free")


def free_network() -> str:
    """The first three numbers of a network's addresses; nobody here has one of them, be it left
    over from a test that was killed."""
    for number in NETWORKS:
        network = f"10.213.{number}"
        if not _is_ours(f"{network}.1") and _claimed(f"network-{number}"):
            return network
    raise AssertionError("no network is free")


def _claimed(name: str) -> bool:
    """Whether ``name`` is ours from now on, and was nobody's before."""
    folder = Path(tempfile.gettempdir()) / f"asb-tests-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _ours.append(lock)
    return True


def _is_ours(address: str) -> bool:
    """Whether it is an address of this machine."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
