"""TLS: a server with a certificate of our own authority, which asks its clients for one, too."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from services.runtime.errors import RedisUnavailable
from services.store.client import Client, SyncClient
from services.store.redis_server import find_server, free_port
from tests.e2e.cli import Up
from tests.servers import RedisServer

SERVER = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(SERVER is None, reason="the wheel's server speaks no TLS"),
]


class SecureServer:
    """A server with a port for TLS, and the files of its authority and of a client."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.own, self.key = self._certified(folder, authority, "server", "localhost")
        self.client, self.client_key = self._certified(folder, authority, "client", "worker")
        self.port = free_port()
        self._server = RedisServer(
            folder / "redis",
            binary=find_server(SERVER),
            options=(
                *("--tls-port", str(self.port), "--tls-auth-clients", "yes"),
                *("--tls-cert-file", str(self.own), "--tls-key-file", str(self.key)),
                *("--tls-ca-cert-file", str(self.authority)),
            ),
        )

    @staticmethod
    def _certified(folder: Path, authority: trustme.CA, name: str, host: str) -> tuple[Path, Path]:
        made = authority.issue_cert(host)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key

    def start(self) -> SecureServer:
        self._server.start()
        return self

    def stop(self) -> None:
        self._server.stop()

    def url(self, **options: object) -> str:
        return f"rediss://localhost:{self.port}/0?{urlencode(options)}"

    @property
    def known(self) -> str:
        """The URL of a client that knows the authority, and whom the server knows."""
        return self.url(
            ssl_ca_certs=self.authority, ssl_certfile=self.client, ssl_keyfile=self.client_key
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[SecureServer]:
    made = SecureServer(tmp_path_factory.mktemp("tls")).start()
    yield made
    made.stop()


async def test_both_sides_know_each_other(server: SecureServer) -> None:
    client = Client(server.known)
    with contextlib.closing(SyncClient(server.known)) as waiting:
        assert waiting.call("SET", "who", "me") == b"OK"
        assert await client.call("GET", "who") == b"me"
    await client.close()


@pytest.mark.parametrize("missing", ["authority", "certificate"])
async def test_a_side_that_is_not_known_is_no_partner(server: SecureServer, missing: str) -> None:
    url = server.url() if missing == "authority" else server.url(ssl_ca_certs=server.authority)
    with pytest.raises(RedisUnavailable, match="no Redis answers at rediss"):
        SyncClient(url).call("PING")
    client = Client(url)
    with pytest.raises(RedisUnavailable, match="no Redis answers at rediss"):
        await client.call("PING")


def test_a_bus_as_users_start_it_runs_over_tls(server: SecureServer, tmp_path: Path) -> None:
    up = Up(tmp_path, f"--redis={server.known}", "--workers=1", "--", "cat").start()
    try:
        done = up.run("submit", f"--redis={server.known}", "--wait", "Say hello")
        assert done.returncode == 0, done.stderr
        assert "completed" in done.stdout
    finally:
        up.end()
