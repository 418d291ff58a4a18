"""A bus on a Redis Cluster: whoever serves a key is asked, also where that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

import pytest

from services.runtime.errors import RedisUnavailable, RedisUnsuitable
from services.store.client import Client, SyncClient
from services.store.health import check_server, durability, read_facts
from services.store.server_table import facts_table
from tests.clusters import Cluster
from tests.e2e.cli import Up, asb
from tests.wait import wait_blocking, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

KEYS = [f"asb:key:{n}" for n in range(60)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def sync(cluster: Cluster) -> Generator[SyncClient]:
    with contextlib.closing(SyncClient(cluster.url)) as client:
        yield client


async def test_every_key_is_found_and_every_node_looked_through(
    cluster: Cluster, sync: SyncClient
) -> None:
    client = Client(cluster.url)
    assert await client.pipeline([("SET", key, n) for n, key in enumerate(KEYS)]) == [b"OK"] * 60
    assert sync.pipeline([("GET", key) for key in KEYS]) == [b"%d" % n for n in range(60)]
    sizes = await client.everywhere("DBSIZE")
    assert len(sizes) == 3
    assert all(sizes), "the keys are to be spread"
    assert sorted(set(sync.scan("asb:key:*"))) == sorted(key.encode() for key in KEYS)
    cursor, seen = b"0", set[bytes]()
    while True:
        cursor, page = await client.call("SCAN", cursor, "MATCH", "asb:key:*", "COUNT", 7)
        seen.update(page)
        if cursor == b"0":
            break
    assert len(seen) == 60
    together = client.together(KEYS)
    assert sorted(key for group in together for key in group) == sorted(KEYS)
    assert client.together(["{x}:1", "{x}:2", "y"]) == [["{x}:1", "{x}:2"], ["y"]]
    await client.close()


async def test_a_plain_url_of_any_node_leads_to_all(cluster: Cluster) -> None:
    for node in cluster.nodes:
        client = Client(node.url)
        facts = await check_server(client)
        assert facts.mode == "cluster"
        assert facts.cluster == "redis+cluster://" + ",".join(
            sorted(f"127.0.0.1:{primary.port}" for primary in cluster.primaries)
        )
        for key in KEYS[:6]:
            assert await client.call("SET", key, "x") == b"OK"
        with contextlib.closing(SyncClient(node.url)) as waiting:
            assert waiting.pipeline([("GET", key) for key in KEYS[:6]]) == [b"x"] * 6
        await client.close()


async def test_doctor_says_what_a_failover_may_take(cluster: Cluster) -> None:
    client = Client(cluster.url)
    facts = await read_facts(client)
    rows = {row[0]: row for row in facts_table(facts)}
    assert facts.fails_over
    assert rows["mode"][1:3] == (f"cluster: {facts.cluster}", "ok")
    assert rows["replicas"][1].startswith("1 following")
    assert "a failover takes" in durability(facts).promise
    assert "min-replicas-to-write" in durability(facts).hint
    await client.close()


async def test_what_is_no_cluster_or_answers_nobody_is_named(redis_url: str) -> None:
    plain = "redis+cluster://" + redis_url.partition("://")[2]
    for url, error in (
        (plain, RedisUnsuitable),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2", RedisUnavailable),
    ):
        client = Client(url)
        with pytest.raises(error):
            await client.call("PING")
        with pytest.raises(error):
            SyncClient(url).call("PING")
        await client.close()


async def test_a_slot_that_moves_is_followed(cluster: Cluster, sync: SyncClient) -> None:
    client = Client(cluster.url)
    key, list_key = "{moving}:a", "{moving}:b"
    assert await client.call("SET", key, 1) == b"OK"
    assert sync.call("RPUSH", list_key, "x") == 1
    changes = client.changes
    cluster.reshard(key)
    assert await client.call("INCR", key) == 2
    assert client.changes > changes, "whoever holds what he has read must learn of it"
    assert sync.call("RPUSH", list_key, "y") == 2
    assert sync.pipeline([("GET", key), ("LLEN", list_key)]) == [b"2", 2]
    await client.close()


async def test_while_a_slot_moves_each_key_is_asked_where_it_is(
    cluster: Cluster, sync: SyncClient
) -> None:
    """ASK for what has gone already, TRYAGAIN for a script between both."""
    client = Client(cluster.url)
    source = cluster.primary_of("{half}")
    target = next(node for node in cluster.primaries if node is not source)
    await client.pipeline([("SET", f"{{half}}:{n}", n) for n in range(4)])
    slot = source.ask("CLUSTER", "KEYSLOT", "{half}")
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    source.ask("MIGRATE", "127.0.0.1", target.port, "{half}:0", 0, 10_000)
    assert await client.call("INCR", "{half}:0") == 1
    asked = [("INCR", f"{{half}}:{n % 2}") for n in range(6)]
    assert await client.pipeline(asked) == [2, 2, 3, 3, 4, 4]
    assert sync.pipeline([("GET", f"{{half}}:{n}") for n in range(4)]) == [b"4", b"4", b"2", b"3"]
    both = ("EVAL", "return redis.call('INCR', KEYS[1])", 2, "{half}:1", "{half}:0")
    with pytest.raises(RedisUnavailable, match="TRYAGAIN"):
        await client.call(*both)
    with pytest.raises(RedisUnavailable, match="TRYAGAIN"):
        sync.call(*both)
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", "{half}:1", "{half}:2")
    source.ask("MIGRATE", "127.0.0.1", target.port, "{half}:3", 0, 10_000)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    assert await client.call(*both) == 5
    await client.close()


async def test_a_lost_node_is_told_of_and_its_heir_found(cluster: Cluster) -> None:
    client = Client(cluster.url)
    assert await client.call("SET", "asb:events:x", 1) == b"OK"
    assert await client.call("SET", "other", 1) == b"OK"
    before = client.changes
    await asyncio.to_thread(cluster.restart, "asb:events:x")
    assert client.changes > before, "nobody asked it meanwhile, and yet"

    async def writes() -> bool:
        try:
            return await client.call("SET", "asb:events:x", 2) == b"OK"
        except RedisUnavailable:
            return False

    await wait_until(writes, what="the replica takes writes")
    assert await client.call("GET", "other") == b"1"
    await client.close()


async def test_messages_of_all_nodes_are_heard(cluster: Cluster, sync: SyncClient) -> None:
    client = Client(cluster.url)
    heard = client.messages("__keyspace@0__:asb:key:*")
    for _ in range(3):
        assert (await anext(heard))[0] == b"psubscribe"
    for key in KEYS:
        sync.call("SET", key, 1)
    channels = {(await anext(heard))[2] for _ in KEYS}
    assert channels == {b"__keyspace@0__:" + key.encode() for key in KEYS}
    await heard.aclose()
    await client.close()


def test_a_bus_as_users_start_it(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("up")
    command = (f"--redis={cluster.url}", "--namespace=up", "--workers=1", "--", "cat")
    up = Up(folder, *command).start()

    def run(*arguments: str) -> str:
        where = (f"--redis={cluster.url}", "--namespace=up")
        done = asb(*arguments[:1], *where, *arguments[1:], cwd=folder)
        return done.stdout if done.returncode == 0 else ""

    try:
        assert "completed" in run("submit", "--id=one", "--wait", "Say hello")
        cluster.restart("up:events")
        wait_blocking(lambda: "completed" in run("submit", "--id=two", "--wait", "Again"), 90)
        assert run("replay", "--verify")
    finally:
        up.end()
