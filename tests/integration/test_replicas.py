"""Whether replicas have what their primary has, asked of real servers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from services.store.client import SyncClient
from services.store.replicas import replicated
from tests.servers import RedisServer
from tests.wait import wait_blocking


@pytest.fixture
def servers(tmp_path: Path) -> Generator[list[RedisServer]]:
    made = [RedisServer(tmp_path / f"redis-{n}").start() for n in range(2)]
    yield made
    for server in made:
        server.stop()


def linked(replica: RedisServer) -> bool:
    return b"master_link_status:up" in replica.call("INFO", "replication")


def test_a_server_alone_has_nobody_to_wait_for(servers: list[RedisServer]) -> None:
    client = SyncClient(servers[0].url)
    assert replicated(client)
    client.close()


def test_a_replica_that_does_not_answer_is_waited_for(servers: list[RedisServer]) -> None:
    primary, replica = servers
    replica.call("REPLICAOF", "127.0.0.1", primary.port)
    wait_blocking(lambda: linked(replica), what="the replica follows")
    client = SyncClient(primary.url)
    wait_blocking(lambda: replicated(client), what="it has all")
    replica.freeze()
    client.call("SET", "x", "1")
    assert not replicated(client, within_s=0.5)
    replica.thaw()
    wait_blocking(lambda: replicated(client), what="it has all again")
    client.close()
    replica_client = SyncClient(replica.url)
    assert not replicated(replica_client, within_s=0)
    replica_client.close()
