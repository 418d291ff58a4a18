"""A bus on a Redis Cluster: whoever serves a key is asked, also where that changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.runtime.errors import RedisUnavailable, RedisUnsuitable
from services.store import acl, rebuild
from services.store.client import Client, SyncClient
from services.store.forgetting import on_disk
from services.store.health import check_server, durability, read_facts
from services.store.replicas import replicated
from services.store.replies import Command, info_of
from services.store.server_table import facts_table
from tests.clusters import Cluster, ClusterNode
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


async def test_a_node_that_says_nothing_is_given_up(cluster: Cluster) -> None:
    """Its system takes connections, and nobody greets."""
    key = "{frozen}"
    node = cluster.primary_of(key)
    with contextlib.closing(SyncClient(cluster.url)) as waiting:
        client = Client(cluster.url)
        assert waiting.call("SET", "other", 1) == b"OK"
        assert await client.call("SET", "other", 1) == b"OK"
        node.freeze()
        try:
            with pytest.raises(RedisUnavailable):
                await client.call("SET", key, 1)

            async def writes() -> bool:
                try:
                    return await client.call("SET", key, 1) == b"OK"
                except RedisUnavailable:
                    return False

            await wait_until(writes, within=60, what="the replica takes writes")
            wait_blocking(lambda: _writes(waiting, key), 60)
        finally:
            node.thaw()
            await client.close()
    cluster.settled()


def test_whether_all_is_replicated_is_asked_of_the_node_that_has_the_log(cluster: Cluster) -> None:
    """Also by the plain URL of a node: one that may be lost has to have a replica."""
    node = cluster.primary_of("asb:events")
    elsewhere = next(key for key in KEYS if cluster.primary_of(key) is not node)
    (replica,) = (n for n in cluster.nodes if n.ask("ROLE")[2] == node.port)
    with (
        contextlib.closing(SyncClient(node.url, "asb:events")) as client,
        contextlib.closing(SyncClient(node.url, elsewhere)) as other,
    ):
        assert replicated(client)
        assert replicated(other)
        replica.kill9()
        wait_blocking(lambda: not replicated(client, within_s=0), what="the replica is missed")
        assert replicated(other)
    replica.start()
    cluster.settled()


def _writes(client: SyncClient, key: str) -> bool:
    try:
        return client.call("SET", key, 2) == b"OK"
    except RedisUnavailable:
        return False


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


class Bus:
    """`asb up` on the Cluster, with a worker, and every command for it."""

    def __init__(self, cluster: Cluster, folder: Path, url: str, *arguments: str) -> None:
        self.folder, self.url, self.keys = folder, url, Keys("up")
        where = (f"--redis={url}", f"--namespace={self.keys.namespace}")
        self.up = Up(folder, *where, *arguments)
        self._where = where

    def run(self, *arguments: str) -> str:
        """What a command prints, "" where it fails; so does one that finds a node lost."""
        done = asb(*arguments[:1], *self._where, *arguments[1:], cwd=self.folder)
        return done.stdout if done.returncode == 0 else ""

    def told(self, *arguments: str) -> str:
        """The same, and it must not fail."""
        done = asb(*arguments[:1], *self._where, *arguments[1:], cwd=self.folder)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def bus(cluster: Cluster, tmp_path: Path) -> Generator[Bus]:
    made = Bus(cluster, tmp_path, cluster.url, "--workers=1", "--", "cat")
    made.up.start()
    try:
        yield made
    finally:
        made.up.end()
        for node in cluster.primaries:
            node.ask("FLUSHALL")


LOOKS = (
    *("status", "metrics", "throttle", "tasks", "events", "limits", "policy", "prices", "alerts"),
    *("deadletter", "routes", "account", "report", "config"),
)


def test_every_command_does_its_work(cluster: Cluster, bus: Bus) -> None:
    first = bus.told("submit", "--id=one", "--wait", "Say the word xylophone")
    assert "completed" in first
    task = json.loads(bus.told("tasks", "--json"))[0]["task"]
    for look in LOOKS:
        bus.told(look)
    assert (
        "redis+cluster://"
        in asb("doctor", f"--redis={cluster.nodes[0].url}", "--namespace=up", cwd=bus.folder).stdout
    )
    assert "xylophone" in bus.told("task", task)
    bus.told("pause", "worker1")
    held = bus.told("submit", "Wait").split()[-1]
    bus.told("cancel", held)
    bus.told("resume", "worker1")
    assert bus.told("retry", task)
    assert bus.told("replay", "--verify")
    assert bus.told("archive")
    assert bus.told("archive", "--verify")
    assert bus.told(
        "replay", "--until", json.loads(bus.told("events", "--json").splitlines()[-1])["log_id"]
    )
    bus.told("forget", task, "--yes", "--verify")
    assert "xylophone" not in bus.told("task", task)
    assert bus.told("status", "--all-namespaces")


def test_documents_alerts_and_snapshots(cluster: Cluster, bus: Bus, sync: SyncClient) -> None:
    document = {"task_id": "T-1", "agent": "claude", "status": "in_progress", "progress": 60}
    for n in range(6):  # keys on all nodes, written by hand, as redis-cli -c does
        sync.call("SET", bus.keys.progress("claude", f"T-{n}"), json.dumps(document))
    bus.told("redis", "--command=set", "--key=up:progress:codex:T-9", '--value={"progress": 5}')
    taken = ("--type=progress.updated", "--json")
    wait_blocking(lambda: len(bus.told("events", *taken).splitlines()) == 7, what="all are taken")
    assert len(bus.told("redis", "--command=keys", "--pattern=up:progress:*").split()) == 7
    elsewhere = next(n for n in cluster.primaries if n is not cluster.primary_of(bus.keys.log))
    with contextlib.closing(SyncClient(elsewhere.url)) as client:
        heard = client.messages(bus.keys.alerts_channel)
        assert next(heard)[0] == b"subscribe"
        bus.told("redis", "--command=publish", "--channel=up:alerts", "--value=fire")
        assert next(heard)[2] == b"fire"
        heard.close()
    state, size = rebuild.write_snapshot(sync, bus.keys)
    assert size == len(sync.call("GET", bus.keys.snapshot))
    assert rebuild.rebuild(sync, bus.keys).meta.events >= state.meta.events


def test_each_document_that_was_set_is_taken_though_nobody_looked_meanwhile(
    cluster: Cluster, tmp_path: Path
) -> None:
    bus = Bus(cluster, tmp_path, cluster.url, "--workers=0")
    key = bus.keys.progress("codex", "T-1")
    for percent, tokens in ((20, 1_000), (60, 4_000)):
        document = json.dumps({"progress": percent, "tokens_used": {"total": tokens}})
        bus.told("redis", "--command=set", f"--key={key}", f"--value={document}")
        assert json.loads(bus.told("redis", "--command=get", f"--key={key}"))["progress"] == percent
    bus.up.start()

    def taken() -> list[int]:
        lines = bus.run("events", "--type=progress.updated", "--json").splitlines()
        return [json.loads(line)["data"]["percent"] for line in lines]

    try:
        wait_blocking(lambda: len(taken()) >= 2, within=60, what="both are on the log")
        assert taken() == [20, 60]
        assert json.loads(bus.told("metrics", "--json"))["total"]["tokens"] == 4_000
    finally:
        bus.up.end()
        for node in cluster.primaries:
            node.ask("FLUSHALL")


def test_a_bus_goes_on_after_its_primary_was_lost(cluster: Cluster, bus: Bus) -> None:
    assert "completed" in bus.told("submit", "--id=one", "--wait", "Say hello")
    cluster.restart(bus.keys.log)
    wait_blocking(lambda: "completed" in bus.run("submit", "--id=two", "--wait", "Again"), 90)
    assert bus.told("replay", "--verify")


PAGE = Path(__file__).resolve().parents[2] / "ops" / "topologies.md"


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli")
def test_a_cluster_made_as_the_page_says_carries_a_bus(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Cluster\n")[2].partition("\n## ")[0]
    settings, commands = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    options = [word for line in settings.splitlines() for word in f"--{line}".split()]
    made = Cluster(tmp_path / "cluster", *options)
    create, up = commands.splitlines()
    for n, node in enumerate(made.nodes, 1):
        create = create.replace(f"10.0.0.{n}:6379", f"127.0.0.1:{node.port}")
        up = re.sub(rf"10\.0\.0\.{n}\b", f"127.0.0.1:{node.port}", up)
    bus = Bus(made, tmp_path, up.partition("--redis ")[2], "--workers=1", "--", "cat")
    try:
        for node in made.nodes:
            node.start()
        subprocess.run([*create.split(), "--cluster-yes"], check=True, capture_output=True)
        made.settled()
        bus.up.start()
        assert "completed" in bus.told("submit", "--wait", "Say hello")
        assert (
            "must follow closely"
            in asb("doctor", f"--redis={bus.url}", "--namespace=up", cwd=tmp_path).stdout
        )
    finally:
        bus.up.end()
        made.stop()


def test_a_log_is_read_to_its_end_on_one_node_or_not_at_all(cluster: Cluster) -> None:
    """Where another node takes over meanwhile, what follows there may follow upon another past."""
    key = "one:past"
    with contextlib.closing(SyncClient(cluster.url)) as client:
        for n in range(1, 4):
            client.call("XADD", key, f"{n}-1", "n", n)
        read = ("XRANGE", key, "-", "+", "COUNT", 1)

        moves = iter([True])

        def following(replies: list[Any]) -> Sequence[Command]:
            place = replies[0][0][0].decode() if replies[0] else ""
            if place == "1-1" and next(moves, False):
                cluster.reshard(key)
            return [("XRANGE", key, f"({place}", "+", "COUNT", "1")] if place else []

        with pytest.raises(RedisUnavailable, match="MOVED"):
            list(client.chain([read], following))

        def whole() -> bool:
            with contextlib.suppress(RedisUnavailable):  # until it is looked who serves it
                return len(list(client.chain([read], following))) == 4
            return False

        wait_blocking(whole, within=20, what="it is read on the other node")
        client.call("DEL", key)


async def test_what_is_read_behind_an_entry_is_of_the_past_that_has_it(cluster: Cluster) -> None:
    """An answer of one node that it still stands says nothing of what another one sends behind."""
    key, client = "two:pasts", Client(cluster.url)
    first = await client.call("XADD", key, "*", "n", 1)
    read = ("XREAD", "BLOCK", 9_000, "STREAMS", key, first)
    both = asyncio.create_task(client.block_on_one(("XRANGE", key, first, first), read))
    node = cluster.primary_of(key)
    await wait_until(lambda: b"blocked_clients:0" not in node.ask("INFO", "clients"))
    await asyncio.to_thread(cluster.reshard, key)
    with pytest.raises(RedisUnavailable, match="MOVED"):
        await both
    second = await client.call("XADD", key, "*", "n", 2)

    async def again() -> list[Any]:
        with contextlib.suppress(RedisUnavailable):  # until it is looked who serves it
            return await client.block_on_one(("XRANGE", key, first, first), read)
        return []

    stands, reply = await wait_until(again, within=20)
    assert (len(stands), reply[0][1][0][0]) == (1, second)
    await client.call("DEL", key)
    await client.close()


async def test_an_agents_own_user_reaches_its_keys_on_every_node(cluster: Cluster) -> None:
    keys = Keys("walled")
    words = acl.line(
        "codex", "agent", keys, acl.password_hash("pw"), cluster.nodes[0].binary.version
    )
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", *words.split()[1:])
    url = cluster.url.replace("://", "://codex:pw@")
    client = Client(url, keys.log)
    mine = keys.progress("codex", "t1")
    with contextlib.closing(SyncClient(url, keys.log)) as waiting:
        for n in range(20):  # of many slots
            assert waiting.call("SET", f"{mine}{n}", n, "EX", 60) == b"OK"
            assert await client.call("GET", f"{mine}{n}") == str(n).encode()
        assert waiting.call("XADD", keys.intake("codex"), "*", "a", 1)
        with pytest.raises(RedisUnsuitable, match="NOPERM"):
            waiting.call("GET", keys.log)
    await client.close()
    for node in cluster.nodes:
        node.ask("ACL", "DELUSER", "codex")


async def test_the_files_of_every_node_that_has_some_are_written_anew(cluster: Cluster) -> None:
    """Also where another node has none: what was removed must not stay in them."""
    without, *others = cluster.primaries

    def rewrites(node: ClusterNode) -> int:
        return int(info_of(node.ask("INFO", "persistence"))["aof_rewrites"])

    async def alive() -> None: ...

    client = Client(cluster.url)
    without.ask("CONFIG", "SET", "appendonly", "no")
    try:
        before = [rewrites(node) for node in others]
        await on_disk(client, alive)
        assert all(n > m for n, m in zip(map(rewrites, others), before, strict=True))
    finally:
        without.ask("CONFIG", "SET", "appendonly", "yes")
        await client.close()
