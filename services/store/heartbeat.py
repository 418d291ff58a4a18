"""Heartbeats of services: that one runs, and its counters, for everybody who reads the bus.

``asb:service:<name>:<process>`` is a hash that expires: one for every service of every process, so
that a standby masks nobody. An index names them, since nobody should scan a server to find them;
it only says where to look, and whether a service lives is what its own key says.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import msgspec

from events.keys import Keys
from services.runtime.clock import elapsed
from services.runtime.errors import CommandRefused, RedisUnavailable
from services.store.client import Client, SyncClient

BEAT_S = 3.0
KEPT_S = 15  # a process that was killed is missing after this long
PRUNE_EVERY = 20  # beats

DECIDES, PROJECTS = "decides", "projects"

Figures = Mapping[str, str | int]


class Role(msgspec.Struct, frozen=True):
    """What a process does of a service: it decides or projects. ``figures`` are counters that only
    this part of it has."""

    service: str
    does: str
    figures: Callable[[], Figures] = dict[str, str | int]


class Beat(msgspec.Struct, frozen=True):
    """One service of one process, as its heartbeat says."""

    service: str
    process: str
    figures: dict[str, str]
    age_s: float = 0.0

    def number(self, name: str) -> int:
        """The counter ``name``; 0 where it says none."""
        text = self.figures.get(name, "")
        return int(text) if text.isdecimal() else 0

    def does(self, role: str) -> bool:
        """Whether this process ``decides`` or ``projects`` for its service."""
        return self.figures.get(role) == "1"


def host_name() -> str:
    """This host, or container, as its heartbeats name it."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname())


class Heartbeat:
    """Writes the heartbeats of the services of this process."""

    def __init__(self, client: Client, keys: Keys, roles: Sequence[Role]) -> None:
        self._client, self._keys = client, keys
        self._roles = roles
        self.services = tuple(dict.fromkeys(role.service for role in roles))
        host = host_name()
        self.process = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self._base: Figures = {"host": host, "pid": os.getpid()}
        self._began = elapsed()
        self._beats = 0
        self._changes = 0  # of who serves us, as far as we took notice

    async def beat(self, shared: Figures) -> None:
        """Write them all; ``shared`` are the counters of the process. Raises RedisUnavailable, also
        where a server was lost that nobody asked anything meanwhile: what it had said may be gone.
        """
        up = int(elapsed() - self._began)
        base = {**self._base, "up_s": up, "beats": self._beats, **shared}
        commands: list[tuple[str | int, ...]] = []
        for service in self.services:
            key = self._key(service)
            commands += [
                ("HSET", key, *_flat({**base, **self._own(service)})),
                ("EXPIRE", key, KEPT_S),
            ]
        index = self._keys.services
        if not self.services:
            return
        commands.append(("HSET", index, *_flat({self._field(s): 1 for s in self.services})))
        replies = await self._client.pipeline(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, CommandRefused):  # a key of another type in its place gives way
                await self._client.call("DEL", command[1])
        if self._beats % PRUNE_EVERY == 0:
            await self._prune()
        self._beats += 1
        if self._client.changes != self._changes:
            self._changes = self._client.changes
            raise RedisUnavailable("another node of the Cluster serves what one did")

    def _own(self, service: str) -> Figures:
        figures: dict[str, str | int] = {}
        for role in self._roles:
            if role.service == service:
                figures |= {role.does: 1, **role.figures()}
        return figures

    async def end(self) -> None:
        """This process ends in order: it is gone at once."""
        fields = [self._field(service) for service in self.services]
        if not fields:
            return
        await self._client.pipeline(
            [
                *(("DEL", self._key(service)) for service in self.services),
                ("HDEL", self._keys.services, *fields),
            ]
        )

    async def _prune(self) -> None:
        """Forget where those were that are gone. One that was only late names itself again."""
        named: list[bytes] = await self._client.call("HGETALL", self._keys.services)
        fields = [field.decode("utf-8", "replace") for field in named[::2]]
        commands = [("EXISTS", _key_of(self._keys, field)) for field in fields]
        replies = await self._client.pipeline(commands)
        gone = [field for field, there in zip(fields, replies, strict=True) if there != 1]
        if gone:
            await self._client.call("HDEL", self._keys.services, *gone)

    def _key(self, service: str) -> str:
        return self._keys.service(service, self.process)

    def _field(self, service: str) -> str:
        return f"{service}:{self.process}"


def _key_of(keys: Keys, field: str) -> str:
    service, _, process = field.partition(":")
    return keys.service(service, process)


def _flat(figures: Figures) -> Iterable[str | int]:
    return [part for pair in figures.items() for part in pair]


def beats(client: SyncClient, keys: Keys) -> list[Beat]:
    """Every service that runs, by its own heartbeat.

    One that would live for longer than heartbeats are kept was written before the server's clock
    went back: it proves nothing. Raises as SyncClient.call.
    """
    try:
        named: list[bytes] = client.call("HGETALL", keys.services)
    except CommandRefused:  # a key of another type: the next beat replaces it
        return []
    fields = sorted(field.decode("utf-8", "replace") for field in named[::2])
    places = [_key_of(keys, field) for field in fields]
    replies = client.pipeline(
        command for key in places for command in (("HGETALL", key), ("PTTL", key))
    )
    rows: list[Beat] = []
    for field, values, left in zip(fields, replies[::2], replies[1::2], strict=True):
        if not isinstance(values, list) or not values or not 0 < left <= KEPT_S * 1000:
            continue
        service, _, process = field.partition(":")
        texts = [v.decode("utf-8", "replace") for v in cast("list[bytes]", values)]
        figures = dict(zip(texts[::2], texts[1::2], strict=True))
        rows.append(Beat(service, process, figures, KEPT_S - left / 1000))
    return rows
