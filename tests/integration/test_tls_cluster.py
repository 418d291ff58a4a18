"""A bus on a Cluster whose nodes speak TLS, ask clients for a certificate and a login, and are
called by the name that is in their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from services.runtime.errors import AsbError, RedisUnavailable, RedisUnsuitable
from services.store.client import Client, SyncClient
from services.store.health import check_server
from tests.certificates import NEEDS_TLS, Authority, options
from tests.clusters import SecureCluster
from tests.e2e.cli import asb
from tests.integration.test_cluster import Bus
from tests.wait import wait_blocking

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600), NEEDS_TLS]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[SecureCluster]:
    made = SecureCluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield made.start()
    finally:
        made.stop()


async def test_every_url_leads_to_all_nodes_and_slots_are_followed(cluster: SecureCluster) -> None:
    keys = [f"asb:key:{n}" for n in range(60)]
    with contextlib.closing(SyncClient(cluster.url)) as waiting:
        assert waiting.pipeline([("SET", key, 1) for key in keys]) == [b"OK"] * 60
        for url in (cluster.url, *(node.url for node in cluster.nodes)):
            client = Client(url)
            assert await client.pipeline([("GET", key) for key in keys]) == [b"1"] * 60
            assert (await check_server(client)).cluster.startswith("rediss+cluster://asb:***@")
            await client.close()
        client = Client(cluster.url)
        assert await client.call("GET", keys[0]) == b"1"
        cluster.reshard(keys[0])
        assert await client.call("INCR", keys[0]) == 2
        assert waiting.call("INCR", keys[0]) == 3
        await client.close()


def test_a_bus_goes_on_when_its_slot_moves_and_its_primary_dies(
    cluster: SecureCluster, tmp_path: Path
) -> None:
    bus = Bus(cluster, tmp_path, cluster.url, "--workers=1", "--", "cat")
    bus.up.start()

    def ends(name: str) -> bool:
        return "completed" in bus.run("submit", f"--id={name}", "--wait", "Say hello")

    try:
        assert ends("before")
        cluster.reshard(bus.keys.log)
        wait_blocking(lambda: ends("moved"), 90)
        cluster.restart(bus.keys.log)
        wait_blocking(lambda: ends("lost"), 90)
        assert bus.told("replay", "--verify")
        events = bus.told("events", "--type=task.completed", "--json").splitlines()
        ended = [json.loads(event)["data"]["task"] for event in events]
        assert len(ended) == len(set(ended)) >= 3
    finally:
        bus.up.end()


@pytest.mark.parametrize(
    ("wrong", "error", "hint"),
    [
        ("authority", RedisUnavailable, "ssl_ca_certs=FILE"),
        ("certificate", RedisUnavailable, "ssl_certfile=FILE"),
        ("host", RedisUnavailable, "another host"),
        ("login", RedisUnsuitable, "password is wrong"),
    ],
)
async def test_who_is_not_known_is_refused_with_what_to_do(
    cluster: SecureCluster, tmp_path: Path, wrong: str, error: type[AsbError], hint: str
) -> None:
    ours, known = cluster.authority, cluster.authority.known
    if wrong in ("authority", "certificate"):
        signer = Authority(tmp_path / "other") if wrong == "authority" else ours
        known = options(ssl_ca_certs=signer.file)
    for url in (ours.url(*cluster.ports, known=known), ours.url(cluster.ports[0], known=known)):
        url = url.replace(ours.host, "127.0.0.1") if wrong == "host" else url
        url = url.replace("asb:", "asb:x") if wrong == "login" else url
        with pytest.raises(error, match=hint):
            SyncClient(url).call("PING")
        with pytest.raises(error, match=hint):
            await Client(url).call("PING")
        done = asb("status", f"--redis={url}", cwd=tmp_path)
        assert done.returncode == 1
        assert hint in done.stderr
        assert "Traceback" not in done.stderr
