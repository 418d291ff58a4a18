"""The secret of a bus: random, made by whoever is first, beside the log and never in an archive.

It keys the digests of texts, so that nobody can find a text by guessing. Where it is lost another
is made: results can then not be reused and duplicates not be told by content across that moment.
"""

from __future__ import annotations

import secrets

from events.keys import Keys
from services.store.client import Client, SyncClient

BYTES = 32


def _new() -> str:
    return secrets.token_hex(BYTES)


class Secret:
    """The secret of one bus, for everyone in this process."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._value = b""

    async def value(self) -> bytes:
        """The secret, made where there is none."""
        return self._value or await self.renew()

    async def renew(self) -> bytes:
        """Look again: Redis was away and may have lost it. Ours is put back where it is gone."""
        mine = self._value.decode() or _new()
        await self._client.call("SET", self._keys.secret, mine, "NX")
        self._value = await self._client.call("GET", self._keys.secret)
        return self._value


def secret_of(client: SyncClient, keys: Keys) -> bytes:
    """The secret of a bus; b"" where it has none yet."""
    return client.call("GET", keys.secret) or b""
