"""A bus behind Sentinel: clients find the primary, and follow it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from pathlib import Path

import pytest

from services.runtime.errors import RedisUnavailable, RedisUnsuitable
from services.store.client import Client, SyncClient
from services.store.health import check_server, durability, read_facts
from services.store.server_table import facts_table
from tests.certificates import NEEDS_TLS
from tests.e2e.cli import Up, asb
from tests.sentinels import SecureSentinels, Sentinels
from tests.wait import wait_blocking, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sentinels]:
    made = Sentinels(tmp_path_factory.mktemp("sentinels")).start()
    yield made
    made.stop()


@pytest.mark.timeout(600)
async def test_every_connection_leads_to_the_primary_also_after_a_failover(
    sentinels: Sentinels,
) -> None:
    client = Client(sentinels.url)
    with contextlib.closing(SyncClient(sentinels.url)) as waiting:
        assert waiting.call("SET", "who", "first") == b"OK"
        assert await client.call("GET", "who") == b"first"
        sentinels.restart()

        async def writes() -> bool:
            try:
                return await client.call("SET", "who", "second") == b"OK"
            except RedisUnavailable:
                return False

        await wait_until(writes, what="the new primary takes writes")
        assert (await check_server(client)).role == "master"
        with contextlib.suppress(RedisUnavailable):  # the connection from before
            waiting.call("PING")
        assert waiting.call("GET", "who") == b"second"
    await client.close()


async def test_whoever_answers_that_he_is_a_replica_is_left(sentinels: Sentinels) -> None:
    """A connection to a server that was made a replica stays open: nobody is told."""
    primary = sentinels.primary
    client = Client(primary.url)
    with contextlib.closing(SyncClient(primary.url)) as waiting:
        before = await client.call("CLIENT", "ID"), waiting.call("CLIENT", "ID")
        primary.call("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(RedisUnavailable, match="READONLY"):
            await client.call("SET", "x", 1)
        with pytest.raises(RedisUnavailable, match="READONLY"):
            waiting.call("SET", "x", 1)
        primary.call("REPLICAOF", "NO", "ONE")
        after = await client.call("CLIENT", "ID"), waiting.call("CLIENT", "ID")
    assert before[0] != after[0]
    assert before[1] != after[1]
    await client.close()


async def test_doctor_says_what_a_failover_may_take(sentinels: Sentinels) -> None:
    client = Client(sentinels.url)
    facts = await read_facts(client)
    rows = {row[0]: row for row in facts_table(facts)}
    assert facts.fails_over
    assert rows["replicas"][2] == "warn"
    assert "a failover takes" in durability(facts).promise
    assert "min-replicas-to-write" in durability(facts).hint
    await client.close()


async def test_sentinels_that_do_not_know_the_service_or_answer_nobody_are_named(
    sentinels: Sentinels,
) -> None:
    nowhere = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/bus"
    for url, why in (
        (f"{sentinels.url}x", "the sentinels name no primary of busx"),
        (nowhere, "[Cc]onnection refused|Connect call failed"),
    ):
        client = Client(url)
        with pytest.raises(RedisUnavailable, match=f"no Redis answers at redis.*({why})"):
            await client.call("PING")
        with pytest.raises(RedisUnavailable, match=f"no Redis answers at redis.*({why})"):
            SyncClient(url).call("PING")
    client = Client(f"redis://127.0.0.1:{sentinels.ports[0]}")
    with pytest.raises(RedisUnsuitable, match="is a Sentinel"):
        await check_server(client)
    await client.close()


@NEEDS_TLS
async def test_with_tls_the_primary_is_found_and_followed(tmp_path: Path) -> None:
    secure = SecureSentinels(tmp_path).start()
    client = Client(secure.url)
    try:
        with contextlib.closing(SyncClient(secure.url)) as waiting:
            assert waiting.call("SET", "who", "me") == b"OK"
            assert await client.call("GET", "who") == b"me"
            await asyncio.to_thread(secure.restart)

            async def writes() -> bool:
                with contextlib.suppress(RedisUnavailable):
                    return await client.call("SET", "who", "me") == b"OK"
                return False

            await wait_until(writes, what="the new primary takes writes")
        stranger = secure.url.partition("?")[0]
        with pytest.raises(RedisUnavailable, match="ssl_ca_certs=FILE"):
            SyncClient(stranger).call("PING")
        with pytest.raises(RedisUnavailable, match="ssl_ca_certs=FILE"):
            await Client(stranger).call("PING")
    finally:
        await client.close()
        secure.stop()


def test_a_bus_as_users_start_it_goes_on_after_a_failover(
    sentinels: Sentinels, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("up")
    command = (f"--redis={sentinels.url}", "--namespace=up", "--workers=1", "--", "cat")
    up = Up(folder, *command).start()

    def run(*arguments: str) -> str:
        where = (f"--redis={sentinels.url}", "--namespace=up")
        done = asb(*arguments[:1], *where, *arguments[1:], cwd=folder)
        return done.stdout if done.returncode == 0 else ""

    try:
        assert "completed" in run("submit", "--id=one", "--wait", "Say hello")
        sentinels.restart()
        wait_blocking(lambda: "completed" in run("submit", "--id=two", "--wait", "Again"), 90)
        assert run("replay", "--verify")
    finally:
        up.end()
