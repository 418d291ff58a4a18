"""What asb says of a Redis: on real servers, set up right and wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import msgspec
import pytest

from services.runtime.errors import RedisUnavailable, RedisUnsuitable
from services.store.client import Client
from services.store.health import (
    ServerFacts,
    check_server,
    durability,
    is_loopback,
    read_facts,
    sends_needed_events,
)
from services.store.server_table import facts_table
from tests.clusters import ClusterNode
from tests.servers import RedisServer
from tests.wait import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def own(tmp_path: Path) -> Generator[RedisServer]:
    """A server of the test's own, to be set up wrongly."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture
async def reader(own: RedisServer) -> AsyncGenerator[Client]:
    opened = Client(own.url)
    yield opened
    await opened.close()


async def verdicts(client: Client) -> dict[str, str]:
    return {name: verdict for name, _, verdict, _ in facts_table(await read_facts(client))}


async def test_a_server_as_asb_starts_it_is_fine(own: RedisServer, reader: Client) -> None:
    facts = await check_server(reader)
    assert facts.kind == own.binary.brand
    assert facts.version_text == own.binary.identity.shown.lower()
    assert len(facts.run_id) == 40
    assert (facts.mode, facts.role, facts.loading) == ("standalone", "master", False)
    assert (facts.appendonly, facts.appendfsync, facts.aof_enabled) == ("yes", "everysec", True)
    assert facts.aof_last_write_status == "ok"
    assert facts.maxmemory_policy == "noeviction"
    assert facts.has_waitaof == (own.binary.version >= (7, 2, 0))  # Valkey began there
    assert facts.loopback
    found = await verdicts(reader)
    assert {name for name, verdict in found.items() if verdict != "ok"} == {"forced to disk"}


async def test_the_run_id_tells_a_restart(own: RedisServer, reader: Client) -> None:
    before = (await check_server(reader)).run_id
    own.restart()
    with pytest.raises(RedisUnavailable):  # the connection from before
        await check_server(reader)
    assert (await check_server(reader)).run_id != before


async def test_a_replica_is_refused(own: RedisServer, reader: Client) -> None:
    own.call("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(RedisUnavailable, match="read-only replica") as caught:
        await check_server(reader)
    assert "primary" in caught.value.hint
    assert (await verdicts(reader))["role"] == "bad"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "volatile-lru"])
@pytest.mark.parametrize("bound", ["0", "100mb"])
async def test_a_server_that_may_evict_is_refused_whatever_its_bound(
    own: RedisServer, reader: Client, policy: str, bound: str
) -> None:
    own.call("CONFIG", "SET", "maxmemory-policy", policy)
    own.call("CONFIG", "SET", "maxmemory", bound)
    with pytest.raises(RedisUnsuitable, match=policy) as caught:
        await check_server(reader)
    assert "noeviction" in caught.value.hint
    assert (await verdicts(reader))["memory"] == "bad"
    own.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await check_server(reader)


async def test_eviction_is_seen_where_the_configuration_is_closed(own: RedisServer) -> None:
    own.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    own.call("ACL", "SETUSER", "hosted", "on", ">pw", "~*", "&*", "+@all", "-config")
    client = Client(own.url.replace("://", "://hosted:pw@"))
    with pytest.raises(RedisUnsuitable, match="volatile-lru"):
        await check_server(client)
    await client.close()


async def test_evicted_keys_are_counted_and_shown(own: RedisServer, reader: Client) -> None:
    assert (await verdicts(reader))["evicted keys"] == "ok"
    own.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    used = (await reader.call("INFO", "memory")).split(b"used_memory:")[1].split()[0]
    own.call("CONFIG", "SET", "maxmemory", int(used) + 200_000)
    for number in range(20):
        own.call("SET", f"k{number}", "v" * 50_000)
    own.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own.call("CONFIG", "SET", "maxmemory", 0)
    assert (await check_server(reader)).evicted_keys > 0
    assert (await verdicts(reader))["evicted keys"] == "warn"


async def test_a_loading_server_is_told_apart(own: RedisServer) -> None:
    for _ in range(3):
        own.call("EVAL", "for i=1,1500 do redis.call('RPUSH','k',i) end", 0)
    own.kill9()
    own.spawn("--key-load-delay", "400")  # microseconds a command: some seconds of loading
    client = Client(own.url)

    async def refusal() -> str:
        try:
            await check_server(client)
        except RedisUnavailable as error:
            return str(error)
        return "serves"

    async def seen_loading() -> bool:
        return "is loading" in await refusal()

    async def serves() -> bool:
        return await refusal() == "serves"

    await wait_until(seen_loading, what="the server says that it is loading")
    await wait_until(serves, within=20, what="the server has loaded")
    await client.close()


async def test_no_server_at_all(own: RedisServer, reader: Client) -> None:
    own.kill9()
    with pytest.raises(RedisUnavailable, match="no Redis answers"):
        await check_server(reader)


async def test_a_user_who_may_not_ask_for_the_configuration(own: RedisServer) -> None:
    own.call("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", "-config")
    client = Client(own.url.replace("://", "://poor:pw@"))
    facts = await check_server(client)
    assert (facts.appendonly, facts.appendfsync) == ("unknown", "unknown")
    assert facts.aof_enabled  # INFO says that much
    assert "is not known" in durability(facts).promise
    await client.close()


async def test_too_old_a_server_is_refused(reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = msgspec.structs.replace(
        await read_facts(reader), version=(6, 0, 16), version_text="redis 6.0.16"
    )

    async def old(_: Client) -> ServerFacts:
        return facts

    monkeypatch.setattr("services.store.health.read_facts", old)
    with pytest.raises(RedisUnsuitable, match=r"redis 6\.0\.16.*6\.2 or newer"):
        await check_server(reader)


async def test_durability_says_what_holds(own: RedisServer, reader: Client) -> None:
    async def promise() -> tuple[str, tuple[str, ...]]:
        found = durability(await read_facts(reader))
        assert found.hint or "power loss" in found.holds
        return found.promise, found.holds

    text, holds = await promise()
    assert "the last two seconds" in text
    assert holds == ("the death of any process, Redis included",)
    own.call("CONFIG", "SET", "appendfsync", "always")
    text, holds = await promise()
    assert "survives power loss" in text
    assert "power loss" in holds
    own.call("CONFIG", "SET", "appendfsync", "no")
    assert "not written yet" in (await promise())[0]
    own.call("CONFIG", "SET", "appendonly", "no")
    assert "loses the log" in (await promise())[0]
    own.call("CONFIG", "SET", "save", "900 1")
    assert "RDB snapshot" in (await promise())[0]


async def test_durability_when_the_disk_is_full(reader: Client) -> None:
    facts = msgspec.structs.replace(await read_facts(reader), aof_last_write_status="err")
    assert durability(facts).holds == ()
    assert "cannot write" in durability(facts).promise


async def test_keyspace_events_that_are_off_are_seen(own: RedisServer, reader: Client) -> None:
    own.call("CONFIG", "SET", "notify-keyspace-events", "")
    assert (await verdicts(reader))["keyspace events"] == "warn"


def test_event_flags() -> None:
    assert sends_needed_events("KA")
    assert sends_needed_events("g$xK")
    assert not sends_needed_events("EA")
    assert not sends_needed_events("K$g")


def test_loopback() -> None:
    assert is_loopback("redis://127.0.0.1:6379/0")
    assert is_loopback("redis://u:p@localhost")
    assert is_loopback("unix:///run/redis.sock")
    assert not is_loopback("redis://10.0.0.5:6379")


async def test_little_headroom_is_said(own: RedisServer, reader: Client) -> None:
    """Given a bound of which four fifths are used, then doctor warns before Redis refuses."""
    used = (await read_facts(reader)).used_memory
    for bound, verdict in ((0, "ok"), (4 * used, "ok"), (used + used // 10, "warn")):
        own.call("CONFIG", "SET", "maxmemory", bound)
        assert (await verdicts(reader))["memory"] == verdict


async def test_a_node_of_a_cluster_that_serves_nothing_is_named(tmp_path: Path) -> None:
    node = ClusterNode(tmp_path).start()
    client = Client(node.url)
    with pytest.raises(RedisUnavailable, match="no node of the Cluster serves"):
        await check_server(client)
    await client.close()
    node.stop()
