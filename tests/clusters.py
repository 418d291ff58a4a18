"""Redis Cluster for tests: real servers, three primaries with a replica each."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from redis.crc import key_slot

from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.acl import password_hash
from services.store.blocking import Blocking
from services.store.client import SyncClient
from services.store.replies import classified, packed
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import RedisServer
from tests.wait import wait_blocking

SLOTS = 16_384
PRIMARIES = 3
Word = str | bytes | int | float


class ClusterNode(RedisServer):
    """One node. ``ask`` asks it and nobody else."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        address: str = "127.0.0.1",
        authority: Authority | None = None,
    ) -> None:
        settings = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
            *("--cluster-port", str(free_port()), "--notify-keyspace-events", "K$gx"),
            *("--cluster-announce-ip", address),
        )
        options = (*settings, *options)
        super().__init__(folder, options=options, address=address, authority=authority)
        self.ip, self.id = address, ""

    def ask(self, *command: Word) -> Any:
        """What this very node answers; an error is raised."""
        with contextlib.closing(Blocking.open(self.url, self.url)) as connection:
            try:
                (reply,) = connection.ask(packed([command]), 1)
            except OSError as error:
                raise RedisUnavailable(str(error)) from error
        if isinstance(reply, Exception):
            raise classified(self.url, str(reply))
        return reply

    def call(self, *command: Word) -> Any:
        return self.ask(*command)

    @property
    def state(self) -> dict[str, str]:
        """What it says of the Cluster."""
        lines = self.ask("CLUSTER", "INFO").decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def __repr__(self) -> str:
        return f"node {self.port}"


class Cluster:
    """Three primaries with a replica each (real processes), behind one URL."""

    migrates: tuple[str, ...] = ()  # what MIGRATE is told of a login

    def __init__(self, folder: Path, *options: str, replicas: bool = True) -> None:
        count = 2 * PRIMARIES if replicas else PRIMARIES
        self.nodes = [self.node(folder / f"node-{n}", n, options) for n in range(count)]
        hosts = ",".join(f"{node.address}:{node.port}" for node in self.nodes[:PRIMARIES])
        self.url = f"redis+cluster://{hosts}"

    def node(self, folder: Path, n: int, options: tuple[str, ...]) -> ClusterNode:
        """The node number ``n``: the first three begin as primaries."""
        return ClusterNode(folder, *options)

    def start(self) -> Self:
        """Start all of them; returns once each knows the others and the replicas follow."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            wait_blocking(node.serves, within=60, what=f"{node} serves")
            node.id = node.ask("CLUSTER", "MYID").decode()
        first, share = self.nodes[0], SLOTS // PRIMARIES
        for n, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < PRIMARIES:
                end = SLOTS if n == PRIMARIES - 1 else (n + 1) * share
                node.ask("CLUSTER", "ADDSLOTS", *range(n * share, end))
        for node in self.nodes[1:]:
            meeting = node.ask("CONFIG", "GET", "cluster-port")[1]
            first.ask("CLUSTER", "MEET", node.ip, node.port, meeting)
        wait_blocking(self._all_met, within=60, what="the nodes know each other")
        for primary, replica in zip(self.nodes, self.nodes[PRIMARIES:], strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.id)
        self.settled()
        return self

    def _all_met(self) -> bool:
        known = {node.state["cluster_known_nodes"] for node in self.nodes}
        return known == {str(len(self.nodes))}

    def stop(self) -> None:
        for node in self.nodes:
            node.kill9()

    @staticmethod
    def first_primary(key: str) -> int:
        """The number of the node that serves ``key`` at the start."""
        return min(key_slot(key.encode()) // (SLOTS // PRIMARIES), PRIMARIES - 1)

    # -- who serves what -------------------------------------------------------------------------

    def primary_of(self, key: str) -> ClusterNode:
        """The node that serves a key, as a node that answers has it."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            with contextlib.suppress(AsbError, OSError):
                for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return self._at(int(primary[1]))
        raise AssertionError(f"nobody serves slot {slot}")

    def _at(self, port: int) -> ClusterNode:
        return next(node for node in self.nodes if node.port == port)

    @property
    def primaries(self) -> list[ClusterNode]:
        """Who serves slots now."""
        rows = self.nodes[0].ask("CLUSTER", "SLOTS")
        return [self._at(port) for port in sorted({int(row[2][1]) for row in rows})]

    def settled(self) -> None:
        """Wait until every node finds all slots served, and every primary has a replica that
        follows."""

        def well() -> bool:
            try:
                return all(node.state["cluster_state"] == "ok" for node in self.nodes) and all(
                    self._is_followed(node) for node in self.nodes
                )
            except (AsbError, CommandRefused, OSError):
                return False

        wait_blocking(well, within=90, what="a whole Cluster")

    def _is_followed(self, node: ClusterNode) -> bool:
        role = node.ask("ROLE")
        if role[0] == b"slave":
            return role[3] == b"connected"
        slots = any(int(row[2][1]) == node.port for row in node.ask("CLUSTER", "SLOTS"))
        return not slots or len(self.nodes) == PRIMARIES or len(role[2]) > 0

    # -- as Served ---------------------------------------------------------------------------------

    def call(self, *command: Word) -> Any:
        """One command to whoever serves its key; raw reply."""
        with contextlib.closing(SyncClient(self.url)) as client:
            return client.call(*command)

    def restart(self, key: str = "asb:events") -> None:
        """Kill -9 the primary of ``key``; its replica takes over, and it comes back as that one's
        replica."""
        before = self.primary_of(key)
        before.kill9()
        self.taken_over(key, before)
        before.start()
        self.settled()

    def freeze(self, key: str = "asb:events") -> None:
        """SIGSTOP the primary of ``key``; another takes over, and it wakes up to follow that."""
        before = self.primary_of(key)
        before.freeze()
        self.taken_over(key, before)
        before.thaw()
        self.settled()

    def taken_over(self, key: str, before: ClusterNode) -> None:
        """Wait until every node but ``before`` finds ``key`` at another."""
        others = [node for node in self.nodes if node is not before]
        slot = key_slot(key.encode())

        def moved() -> bool:
            for node in others:
                rows = node.ask("CLUSTER", "SLOTS")
                serving = [int(row[2][1]) for row in rows if row[0] <= slot <= row[1]]
                if serving in ([], [before.port]):
                    return False
            return True

        wait_blocking(moved, within=60, what="a failover")

    # -- slots -------------------------------------------------------------------------------------

    def reshard(self, key: str, batch: int = 10) -> ClusterNode:
        """Move the slot of ``key``, with all that is in it, to another primary, as `redis-cli
        --cluster reshard` does; that primary."""
        slot, source = key_slot(key.encode()), self.primary_of(key)
        target = next(node for node in self.primaries if node is not source)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, batch):
            where = (target.address, target.port, "", 0, 60_000)
            source.ask("MIGRATE", *where, *self.migrates, "KEYS", *keys)
        for node in (target, source, *(n for n in self.primaries if n not in (source, target))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        return target


class SecureCluster(Cluster):
    """Its nodes speak TLS alone, with everybody, and are called by the name in their certificate;
    clients have a certificate and a user."""

    LOGIN = ("asb", "pass word")
    migrates = ("AUTH2", *LOGIN)

    def __init__(self, folder: Path) -> None:
        user, password = self.LOGIN
        login = f"{user}:{quote(password)}@"
        self.authority = Authority(folder / "authority", socket.gethostname(), login)
        super().__init__(
            folder,
            *("--bind", "*", "--protected-mode", "no"),
            *("--tls-cluster", "yes", "--tls-replication", "yes"),
            *("--masteruser", user, "--masterauth", password),
            *("--user", user, "on", password_hash(password), "~*", "&*", "+@all"),
            *("--user", "default", "off"),
            *("--cluster-announce-hostname", self.authority.host),
            *("--cluster-preferred-endpoint-type", "hostname"),
        )
        self.url = self.authority.url(*self.ports)

    def node(self, folder: Path, n: int, options: tuple[str, ...]) -> ClusterNode:
        return ClusterNode(folder, *options, authority=self.authority)

    @property
    def ports(self) -> list[int]:
        """Of the nodes that the URL names."""
        return [node.port for node in self.nodes[:PRIMARIES]]
