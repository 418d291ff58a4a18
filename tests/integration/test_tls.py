"""TLS: a server with a certificate of our own authority, which asks its clients for one, too."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import pytest

from services.runtime.errors import AsbError, RedisUnavailable, RedisUnsuitable
from services.store.client import Client, SyncClient
from tests.certificates import NEEDS_TLS, Authority, options
from tests.e2e.cli import Up
from tests.servers import RedisServer

pytestmark = [pytest.mark.anyio, NEEDS_TLS]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("tls"), authority=authority).start()
    yield made
    made.stop()


async def test_both_sides_know_each_other(server: RedisServer) -> None:
    client = Client(server.url)
    with contextlib.closing(SyncClient(server.url)) as waiting:
        assert waiting.call("SET", "who", "me") == b"OK"
        assert await client.call("GET", "who") == b"me"
    await client.close()


@pytest.mark.parametrize("missing", ["authority", "certificate"])
async def test_a_side_that_is_not_known_is_no_partner(
    server: RedisServer, authority: Authority, missing: str
) -> None:
    known = "" if missing == "authority" else options(ssl_ca_certs=authority.file)
    hint = "ssl_ca_certs=FILE" if missing == "authority" else "ssl_certfile=FILE"
    url = authority.url(server.port, known=known)
    with pytest.raises(RedisUnavailable, match=f"no Redis answers at rediss.*\n.*{hint}"):
        SyncClient(url).call("PING")
    client = Client(url)
    with pytest.raises(RedisUnavailable, match=f"no Redis answers at rediss.*\n.*{hint}"):
        await client.call("PING")


@pytest.mark.parametrize(
    ("url", "error", "match"),
    [
        ("rediss://127.0.0.1:{port}{known}", RedisUnavailable, "names another host"),
        ("rediss://localhost:{port}?ssl_ca_certs=/no", RedisUnavailable, "no PEM file"),
        ("rediss://localhost:{port}?ssl_nonsense=1", RedisUnsuitable, "ssl_nonsense"),
    ],
)
async def test_what_is_wrong_with_a_url_is_said(
    server: RedisServer, authority: Authority, url: str, error: type[AsbError], match: str
) -> None:
    url = url.format(port=server.port, known=authority.known)
    with pytest.raises(error, match=match):
        SyncClient(url).call("PING")
    with pytest.raises(error, match=match):
        await Client(url).call("PING")


def test_a_bus_as_users_start_it_runs_over_tls(server: RedisServer, tmp_path: Path) -> None:
    up = Up(tmp_path, f"--redis={server.url}", "--workers=1", "--", "cat").start()
    try:
        done = up.run("submit", f"--redis={server.url}", "--wait", "Say hello")
        assert done.returncode == 0, done.stderr
        assert "completed" in done.stdout
    finally:
        up.end()
