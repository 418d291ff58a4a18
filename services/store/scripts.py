"""The Lua scripts: one per file in ``lua/``, loaded once, called by hash."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from services.runtime.errors import CommandRefused
from services.store.client import Client, SyncClient
from services.store.replies import WRONG_TYPE, wrong_type

LUA = Path(__file__).parent / "lua"
Argument = str | bytes | int


class Script:
    """One script. Calling it sends its hash; its text only when the server does not know it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (LUA / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text).hexdigest()  # EVALSHA is defined by SHA-1

    async def __call__(self, client: Client, keys: list[str], args: list[Argument]) -> Any:
        """The script's reply. Raises as Client.call."""
        try:
            return await client.call("EVALSHA", self.sha, len(keys), *keys, *args)
        except CommandRefused as refused:
            return await self._with_text(client, keys, args, refused)

    def now(self, client: SyncClient, keys: list[str], args: list[Argument]) -> Any:
        """The script's reply, for those who wait for it. Raises as SyncClient.call."""
        return client.call("EVAL", self.text, len(keys), *keys, *args)

    async def _with_text(
        self, client: Client, keys: list[str], args: list[Argument], refused: CommandRefused
    ) -> Any:
        """The reply to its text, if it was ``refused`` because the server does not know it."""
        if str(refused).startswith("NOSCRIPT") or "No matching script" in str(refused):
            try:
                return await client.call("EVAL", self.text, len(keys), *keys, *args)
            except CommandRefused as error:
                refused = error
        if f"{WRONG_TYPE} Operation" not in str(refused):
            raise refused
        raise wrong_type(await client.types(keys)) from refused


@cache
def script(name: str) -> Script:
    """The script in ``lua/<name>.lua``."""
    return Script(name)
