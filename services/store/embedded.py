"""The embedded Redis: a real ``redis-server`` of our own on one data folder.

What stands in the folder::

    address        URL of the running server; every command reads it (`address_of`)
    starting       the same while it is coming up; renamed to ``address`` once it answers
    server.lock    flock held by the server process itself, so "does one run?" has one true answer
    owner.lock     flock held by the process that will stop it; the kernel frees it on kill -9
    start.lock     flock held while somebody starts one
    server.json    which server that is, and why that one: another brand may not open the folder
    redis.log      the server's log; appendonlydir/ or appendonly.aof is the data

Locks instead of pid files: a pid may be anybody's after a crash, a lock never outlives its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable, RedisUnsuitable
from services.runtime.settings_types import Settings
from services.store.client import SyncClient
from services.store.data_folder import (
    Record,
    is_locked,
    last_lines,
    locked,
    read_text,
    record_of,
    rotated,
    try_lock,
    write_record,
    write_text,
    written_by,
)
from services.store.redis_server import (
    ServerBinary,
    find_server,
    free_port,
    identity_in,
    is_free,
    server_command,
)

__all__ = [
    "Embedded",
    "ServerBinary",
    "address_of",
    "find_server",
    "resolve_url",
    "server_command",
    "start",
]

POLL_S = 0.02
ANSWER_S = 30.0  # a server that does not even accept connections by then is broken
LOADING_S = 3600.0  # a long log may take its time to load; the process is watched meanwhile
STOP_S = 10.0


class Embedded:
    """A running server on ``data_dir``.

    ``owned``: this process stops it. Not owned: another live process does, and ours leaves it
    alone. Use as a context manager, or call `stop`.
    """

    def __init__(
        self, data_dir: Path, port: int, appendfsync: str, server: str | None = None
    ) -> None:
        self.data_dir = data_dir
        self.url = ""
        self.binary: ServerBinary | None = None  # None: it was running already
        self._port = port
        self._appendfsync = appendfsync
        self._server = server
        self._child: subprocess.Popen[bytes] | None = None
        self._joined_pid: int | None = None
        self._owner_lock: int | None = None

    @property
    def owned(self) -> bool:
        return self._owner_lock is not None

    @property
    def pid(self) -> int | None:
        """Process id of the server as it says itself; None if it does not answer."""
        return _answering_pid(self.url, self.data_dir)

    def alive(self) -> bool:
        """Does a server process hold the folder?"""
        return is_locked(self.data_dir / "server.lock")

    def revive(self) -> bool:
        """Start the server again if it died, on the same port where possible. True if it had.

        Raises AsbError with the last lines of its log if it does not come up.
        """
        if self.alive():
            return False
        self._reap()
        with locked(self.data_dir / "start.lock"):
            self._start_or_join()
        return True

    def stop(self) -> None:
        """Stop an owned server and remove its address; twice, or not owned: nothing happens."""
        if self._owner_lock is None:
            return
        with locked(self.data_dir / "start.lock"):
            self._terminate()
            for name in ("address", "starting"):
                (self.data_dir / name).unlink(missing_ok=True)
        os.close(self._owner_lock)
        self._owner_lock = None

    def __enter__(self) -> Embedded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- inside --------------------------------------------------------------------------------

    def _begin(self) -> None:
        with locked(self.data_dir / "start.lock"):
            self._owner_lock = try_lock(self.data_dir / "owner.lock")
            try:
                self._start_or_join()
            except BaseException:  # Ctrl-C too: leave no half-started server behind
                if self._child is not None:
                    self._terminate()
                if self._owner_lock is not None:
                    os.close(self._owner_lock)
                    self._owner_lock = None
                raise

    def _start_or_join(self) -> None:
        deadline = time.monotonic() + ANSWER_S
        # A held lock without an answer: it is coming up, going down, or a rewriting child of a
        # killed server is finishing. All three end by themselves.
        while is_locked(self.data_dir / "server.lock"):
            if url := self._running_url():
                self.url = url
                self._joined_pid = _answering_pid(url, self.data_dir)
                self._wait_ready(None)
                self._publish(url)
                return
            if time.monotonic() > deadline:
                raise AsbError(
                    f"a server process holds {self.data_dir} and does not answer",
                    hint=f"see {self.data_dir / 'redis.log'}, and stop that process",
                )
            time.sleep(POLL_S)
        self._start()

    def _running_url(self) -> str | None:
        for name in ("address", "starting"):
            url = read_text(self.data_dir / name)
            if url and _answering_pid(url, self.data_dir) is not None:
                return url
        return None

    def _start(self) -> None:
        self.binary = find_server(self._server, written_by(self.data_dir), self.data_dir)
        last_url = read_text(self.data_dir / "address") or read_text(self.data_dir / "starting")
        (self.data_dir / "address").unlink(missing_ok=True)
        lines = ""
        for port in _ports(last_url, self._port):
            self.url = f"redis://127.0.0.1:{port}/0"
            write_text(self.data_dir / "starting", self.url)
            log_start = rotated(self.data_dir / "redis.log")
            self._child = _spawn(
                server_command(self.binary, self.data_dir, port, self._appendfsync), self.data_dir
            )
            if self._wait_ready(self._child):
                self._publish(self.url)
                return
            lines = last_lines(self.data_dir / "redis.log", log_start)
            (self.data_dir / "starting").unlink(missing_ok=True)
            if "in use" not in lines:  # else somebody was faster at this port: the next one
                break
        raise AsbError(
            f"{self.binary.shown} does not start in {self.data_dir}; it says:\n{lines}",
            hint=_start_hint(lines),
        )

    def _wait_ready(self, child: subprocess.Popen[bytes] | None) -> bool:
        """Wait until it serves. False if ``child`` ended first; raises AsbError after too long."""
        started = time.monotonic()
        with contextlib.closing(SyncClient(self.url)) as client:
            while True:
                limit = ANSWER_S
                try:
                    client.call("PING")
                    # Another server may have been faster at this port: is it ours?
                    if child is None or _answering_pid(self.url, self.data_dir) == child.pid:
                        return True
                except (RedisUnavailable, CommandRefused) as error:
                    if "loading" in str(error).lower():
                        limit = LOADING_S
                if child is not None and child.poll() is not None:
                    return False
                if time.monotonic() - started > limit:
                    break
                time.sleep(POLL_S)
        if child is not None:
            child.kill()
            child.wait()
        raise AsbError(
            f"the embedded Redis in {self.data_dir} does not answer at {self.url}",
            hint=f"see {self.data_dir / 'redis.log'}",
        )

    def _publish(self, url: str) -> None:
        self._record(url)
        write_text(self.data_dir / "address", url)
        (self.data_dir / "starting").unlink(missing_ok=True)

    def _record(self, url: str) -> None:
        """Note who writes the folder from now on, as it says itself."""
        with contextlib.closing(SyncClient(url)) as client:
            info = bytes(client.call("INFO", "server")).decode("utf-8", "replace")
        identity, before, ours = identity_in(info), record_of(self.data_dir), self.binary
        if identity is None:
            return
        if ours is not None and ours.identity == identity:
            record = Record(identity, str(ours.path), ours.origin, ours.passed_over)
        elif before is not None and before.identity == identity:
            return  # joined: whoever started it knows why
        else:
            program = re.search(r"^executable:(.*)", info, re.MULTILINE)
            record = Record(identity, program[1].strip() if program else "", "running before")
        if record != before:
            write_record(self.data_dir, record)

    def _terminate(self) -> None:
        pid = self._pid_to_stop()
        if pid is None:
            return
        for sign, within_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            if _eventually(lambda: not self.alive(), within_s):
                break
        self._reap()

    def _reap(self) -> None:
        """Collect a child that has ended; it frees its lock a moment before it is gone."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_S)
            self._child = None

    def _pid_to_stop(self) -> int | None:
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        if not self.alive():
            return None
        # The one joined may hang and not answer any more; its lock is proof that it lives.
        return _answering_pid(self.url, self.data_dir) or self._joined_pid


def start(
    data_dir: Path, port: int = 6379, appendfsync: str = "always", server: str | None = None
) -> Embedded:
    """Start the server of ``data_dir``, or join the one that runs there already.

    It takes 127.0.0.1:``port`` if that is free, else another port (`Embedded.url`); which program,
    `find_server` decides, or ``server`` names it. Returns once it serves, which for a long log
    includes loading it. Raises AsbError if there is no program that may open the folder, and with
    the last lines of the server's log if it does not come up. Blocks: call it before the event
    loop or in a thread.
    """
    data_dir = data_dir.expanduser().absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        embedded = Embedded(data_dir.resolve(), port, appendfsync, server)
        embedded._begin()  # pyright: ignore[reportPrivateUsage]
    except OSError as error:
        raise AsbError(
            f"cannot use the data folder {data_dir}: {error}",
            hint="name another one with ASB_DATA_DIR",
        ) from error
    return embedded


def address_of(data_dir: Path) -> str | None:
    """URL of the embedded server running on ``data_dir``; None if none does."""
    # The lock decides: an address left behind by a crash may be another program's by now.
    if not is_locked(data_dir / "server.lock"):
        return None
    return read_text(data_dir / "address")


def resolve_url(settings: Settings) -> str:
    """The Redis to talk to: the configured one, else the running embedded one.

    Raises AsbError if there is neither.
    """
    url = settings.redis_url or address_of(settings.data_dir)
    if url is None:
        named = settings.origins.get("data_dir", "default") != "default"
        folder = f" --data-dir={settings.data_dir}" if named else ""
        raise AsbError(
            f"no bus is running on {settings.data_dir}, and no Redis is named",
            hint=f"`asb{folder} up` starts one; or name a Redis with --redis URL or ASB_REDIS_URL",
        )
    return url


# -- processes and ports -----------------------------------------------------------------------


def _start_hint(lines: str) -> str:
    lowered = lines.lower()
    if "bad file format" in lowered or "unexpected end of file" in lowered:
        return (
            "the append-only file is damaged: copy the folder, then run "
            "redis-check-aof --fix on the file named above, and start again"
        )
    if "can't handle rdb format" in lowered:
        return "the folder was written by a newer Redis: install that version"
    if "no space" in lowered:
        return "free disk space, then start again"
    return "the lines above say why; ASB_DATA_DIR names another folder"


def _spawn(command: list[str], data_dir: Path) -> subprocess.Popen[bytes]:
    lock = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    # Whoever only looks at the lock holds it for microseconds: wait rather than fail.
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with (data_dir / "redis.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,  # complaints about options come before the log file is open
                stderr=log,
                cwd=data_dir,
                umask=0o077,
                pass_fds=[lock],  # the server holds the lock for exactly as long as it lives
                start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the server
            )
    finally:
        os.close(lock)


def _ports(last_url: str | None, preferred: int) -> Iterator[int]:
    """Ports to try: the last one (others may still know it), the preferred one, free ones."""
    last = re.search(r":(\d+)(?:/|$)", last_url or "")
    wanted = [int(last[1])] if last else []
    yield from filter(is_free, dict.fromkeys([*wanted, preferred]))
    for _ in range(5):
        yield free_port()


def _answering_pid(url: str, data_dir: Path) -> int | None:
    """Process id of the server at ``url`` if it answers and its folder is ``data_dir``."""
    if not url:
        return None
    with contextlib.closing(SyncClient(url)) as client:
        try:
            folder: Any = client.call("CONFIG", "GET", "dir")
            info: Any = client.call("INFO", "server")
        except (RedisUnavailable, RedisUnsuitable, CommandRefused):
            return None
    match = re.search(rb"process_id:(\d+)", info)
    try:
        ours = os.path.samefile(folder[1], data_dir)
    except (OSError, IndexError):
        return None
    return int(match[1]) if match and ours else None


def _eventually(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
