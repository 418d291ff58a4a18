"""Redis Sentinel for tests: real servers, and real sentinels that watch them."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

from services.runtime.errors import RedisUnavailable
from services.store.client import SyncClient
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import RedisServer
from tests.wait import wait_blocking


class Sentinels:
    """A primary with a replica, and three sentinels that watch them (real processes)."""

    SERVICE = "bus"
    address = "127.0.0.1"  # of the sentinels

    def __init__(self, folder: Path, *options: str, down_after_ms: int = 1_000) -> None:
        self.servers = [self.server(folder / f"redis-{n}", options) for n in range(2)]
        self.ports = [free_port() for _ in range(3)]
        self._folder, self._down_after_ms = folder, down_after_ms
        self._processes: list[subprocess.Popen[bytes]] = []
        hosts = ",".join(f"{self.address}:{port}" for port in self.ports)
        self.url = f"redis+sentinel://{hosts}/{self.SERVICE}"

    def server(self, folder: Path, options: tuple[str, ...]) -> RedisServer:
        """One of the servers, primary or replica."""
        return RedisServer(folder, options=options)

    def settings(self, port: int) -> tuple[str, ...]:
        """How a sentinel listens at a port."""
        return ("--port", str(port))

    def url_of(self, port: int) -> str:
        """Of one sentinel."""
        return f"redis://{self.address}:{port}"

    def start(self) -> Sentinels:
        """Start all of them; returns once each sentinel knows the others and the replica."""
        first, second = (server.start() for server in self.servers)
        second.call("REPLICAOF", first.address, first.port)
        for port in self.ports:
            self._processes.append(self._sentinel(port, first))
        self.settled()
        return self

    def _sentinel(self, port: int, watched: RedisServer) -> subprocess.Popen[bytes]:
        folder = self._folder / f"sentinel-{port}"
        folder.mkdir(parents=True)
        (folder / "sentinel.conf").write_text(
            f"bind {self.address}\ndir {folder}\nprotected-mode no\n"
            f"sentinel monitor {self.SERVICE} {watched.address} {watched.port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} {self._down_after_ms}\n"
            f"sentinel failover-timeout {self.SERVICE} 5000\n"
        )
        with (folder / "sentinel.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(self.servers[0].binary.path, str(folder / "sentinel.conf"), "--sentinel"),
                    *self.settings(port),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def ask(self, port: int, *command: str) -> Any:
        """What one sentinel answers about the service."""
        with contextlib.closing(SyncClient(self.url_of(port))) as client:
            return client.call("SENTINEL", command[0], self.SERVICE, *command[1:])

    def _is_ready(self, port: int) -> bool:
        try:
            others, replicas = self.ask(port, "sentinels"), self.ask(port, "replicas")
        except RedisUnavailable:
            return False
        states = [dict(zip(r[::2], r[1::2], strict=True)) for r in replicas]
        linked = [s[b"flags"] == b"slave" and s[b"master-link-status"] == b"ok" for s in states]
        return len(others) == len(self.ports) - 1 and linked == [True]

    @property
    def primary(self) -> RedisServer:
        """The server that the sentinels name."""
        port = int(self.ask(self.ports[0], "get-master-addr-by-name")[1])
        return next(server for server in self.servers if server.port == port)

    def call(self, *command: str | bytes | int | float) -> Any:
        """One command to the primary, on a connection of its own; raw reply."""
        with contextlib.closing(SyncClient(self.url)) as client:
            return client.call(*command)

    def restart(self) -> None:
        """Kill -9 the primary; another takes over, and it comes back as a replica of that."""
        before = self.primary
        before.kill9()
        self.failed_over(before)
        before.start()
        self.settled()

    def freeze(self) -> None:
        """SIGSTOP the primary; another takes over, and it wakes up to be a replica of that."""
        before = self.primary
        before.freeze()
        self.failed_over(before)
        before.thaw()
        self.settled()

    def failed_over(self, before: RedisServer) -> None:
        """Wait until all sentinels name another primary than ``before``."""

        def named() -> set[int]:
            return {int(self.ask(port, "get-master-addr-by-name")[1]) for port in self.ports}

        wait_blocking(lambda: before.port not in named(), within=60, what="a failover")

    def settled(self) -> None:
        """Wait until a replica follows the primary (again), and every sentinel has seen it: who was
        not seen to follow is not promoted."""
        wait_blocking(lambda: all(map(self._is_ready, self.ports)), within=60, what="a replica")

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill9()


class SecureSentinels(Sentinels):
    """Servers and sentinels speak TLS alone."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority", self.address)
        super().__init__(folder, "--tls-replication", "yes")
        self.url = "rediss" + self.url.removeprefix("redis") + self.authority.known

    def server(self, folder: Path, options: tuple[str, ...]) -> RedisServer:
        return RedisServer(folder, options=options, authority=self.authority)

    def settings(self, port: int) -> tuple[str, ...]:
        return (*self.authority.settings(port), "--tls-replication", "yes")

    def url_of(self, port: int) -> str:
        return self.authority.url(port)
