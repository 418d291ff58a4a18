"""An authority of our own, with certificates for servers and for their clients."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

SERVER = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
NEEDS_TLS = pytest.mark.skipif(SERVER is None, reason="the wheel's server speaks no TLS")


class Authority:
    """Its certificate, and those of a server called ``host`` and of a client, in a folder.
    ``login``: who clients are besides, as a URL has it, with its ``@``."""

    def __init__(self, folder: Path, host: str = "localhost", login: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.host, self._login, self._made = folder, host, login, trustme.CA()
        self.file = folder / "ca.pem"
        self._made.cert_pem.write_to_path(str(self.file))
        self._server = self._certified("server", host)
        self._client = self._certified("client", "worker")

    def _certified(self, name: str, host: str) -> tuple[Path, Path]:
        made = self._made.issue_cert(host)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key

    def settings(self, port: int) -> tuple[str, ...]:
        """Of a server that speaks TLS at ``port`` alone, and asks its clients who they are."""
        certificate, key = map(str, self._server)
        return (
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "yes"),
            *("--tls-cert-file", certificate, "--tls-key-file", key),
            *("--tls-ca-cert-file", str(self.file)),
        )

    @property
    def known(self) -> str:
        """The options of a URL: the authority is known, and the server knows us."""
        certificate, key = map(str, self._client)
        return options(ssl_ca_certs=self.file, ssl_certfile=certificate, ssl_keyfile=key)

    def url(self, *ports: int, known: str | None = None) -> str:
        """Of the server at a port, or of a Cluster's nodes at several. ``known``: other options."""
        hosts = ",".join(f"{self.host}:{port}" for port in ports)
        scheme, path = ("rediss", "/0") if len(ports) == 1 else ("rediss+cluster", "")
        return f"{scheme}://{self._login}{hosts}{path}{self.known if known is None else known}"


def options(**named: object) -> str:
    """What stands behind a URL."""
    return f"?{urlencode(named)}" if named else ""
