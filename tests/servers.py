"""Real Redis servers for tests.

`RedisServer` is a local process that can be killed, restarted and have its log torn: what crash
tests need. `shared_server` is the one server of a test session: a container where Docker answers,
else a local process. ``ASB_TEST_REDIS=local``, ``docker`` or ``cluster`` (for that one server
alone) chooses. Local servers are what asb
itself would start, whatever is on PATH or activated; ``ASB_TEST_SERVER`` names another program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from services.runtime.errors import RedisUnavailable
from services.store.client import SyncClient
from services.store.redis_server import ServerBinary, find_server, server_command
from tests.certificates import SERVER, Authority
from tests.ports import free_port
from tests.wait import wait_blocking

IMAGE = "redis:7.4-alpine"


def server_program() -> ServerBinary:
    """The program that tests run."""
    return find_server(os.environ.get("ASB_TEST_SERVER") or None)


class Served(Protocol):
    """Something a bus may run on: one server, or several behind one URL."""

    url: str

    def call(self, *command: str | bytes | int | float) -> Any:
        """One command on a connection of its own; raw reply."""

    def restart(self) -> None:
        """Kill -9 whoever serves, and return once somebody does."""

    def stop(self) -> None: ...


class RedisServer:
    """One ``redis-server`` process on a folder of its own; the port stays the same for its life."""

    def __init__(
        self,
        folder: Path,
        *,
        appendfsync: str = "everysec",
        binary: ServerBinary | None = None,
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        authority: Authority | None = None,
    ) -> None:
        """``address``: where it is asked; with another, ``options`` have it listen there. With an
        ``authority`` it speaks TLS alone."""
        self.folder, self.port = folder, free_port()
        self.address = authority.host if authority else address
        plain = f"redis://{address}:{self.port}/0"
        self.url = authority.url(self.port) if authority else plain
        self._environment = {**os.environ, **(environment or {})}
        self.binary = binary or (find_server(SERVER) if authority else server_program())
        self.process: subprocess.Popen[bytes] | None = None
        command = server_command(self.binary, folder, self.port, appendfsync)
        self._command = [*command, *(authority.settings(self.port) if authority else ()), *options]

    def start(self) -> RedisServer:
        """Start it; returns once it serves, loading included."""
        self.spawn()
        wait_blocking(self.serves, within=20, what=f"redis-server on port {self.port} serves")
        return self

    def spawn(self, *options: str) -> None:
        """Start the process and do not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def stop(self) -> None:
        """A clean stop (SIGTERM); nothing if it does not run."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process = None

    def kill9(self) -> None:
        """SIGKILL: what it had not yet written to the kernel is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP: it answers nobody, and its connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill -9, then start on what is on disk."""
        self.kill9()
        self.start()

    def tear_aof(self, size: int) -> None:
        """Cut ``size`` bytes off the end of the log file, as a power loss does. Only while down."""
        assert self.process is None, "stop or kill the server before tearing its log"
        path = self.aof_file()
        whole = path.stat().st_size
        assert 0 < size <= whole, f"cannot cut {size} of {whole} bytes off {path.name}"
        os.truncate(path, whole - size)

    def aof_file(self) -> Path:
        """The file that new commands go to: Redis 7's newest increment, 6.2's only file."""
        manifest = self.folder / "appendonlydir" / "appendonly.aof.manifest"
        if not manifest.exists():
            return self.folder / "appendonly.aof"
        lines = manifest.read_text().splitlines()
        increments = [line.split()[1] for line in lines if line.rstrip().endswith("type i")]
        return manifest.parent / increments[-1]

    def call(self, *command: str | bytes | int | float) -> Any:
        """One command on a connection of its own; raw reply."""
        with contextlib.closing(SyncClient(self.url)) as client:
            return client.call(*command)

    def serves(self) -> bool:
        """Whether it answers; an AssertionError where it has ended."""
        assert self.process is not None
        ended = self.process.poll()
        assert ended is None, f"it ended with {ended}: {self.log_tail()}"
        try:
            return self.call("PING") == b"PONG"
        except RedisUnavailable:
            return False

    def log_tail(self) -> str:
        log = self.folder / "redis.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


@contextlib.contextmanager
def shared_server(folder: Path) -> Generator[str]:
    """URL of a server that lives as long as the context."""
    choice = os.environ.get("ASB_TEST_REDIS", "")
    if choice == "cluster":
        from tests.clusters import Cluster  # which is made of servers

        cluster = Cluster(folder).start()
        try:
            yield cluster.url
        finally:
            cluster.stop()
        return
    if choice == "docker" or (choice != "local" and docker_answers()):
        with _container() as url:
            yield url
        return
    server = RedisServer(folder).start()
    try:
        yield server.url
    finally:
        server.stop()


def docker_answers() -> bool:
    """Is there a Docker daemon that answers?"""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


@contextlib.contextmanager
def _container() -> Generator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecations are not ours
        from testcontainers.core.container import DockerContainer  # slow: only where it is used

        options = "--appendonly yes --appendfsync everysec --save '' --notify-keyspace-events K$gx"
        container = DockerContainer(IMAGE).with_command(f"redis-server {options}")
        container.with_exposed_ports(6379).start()
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
        url = f"redis://{host}:{port}/0"
        wait_blocking(lambda: _pong(url), within=30, what=f"Redis in a container at {url}")
        yield url
    finally:
        container.stop()


def _pong(url: str) -> bool:
    with contextlib.closing(SyncClient(url)) as client:
        try:
            return client.call("PING") == b"PONG"
        except RedisUnavailable:
            return False
