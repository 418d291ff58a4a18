"""From the options of the command line to a Redis, its keys and its state."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import msgspec

from events.envelope import Event
from events.keys import Keys
from projections.state import State
from services.runtime import prices, replay
from services.runtime.client import SyncClient
from services.runtime.embedded import resolve_url
from services.runtime.settings import Settings, load

# Options that every command takes; `main` fills this before the command runs.
given: dict[str, str] = {}
OPTIONS = {
    "--redis": "redis_url",
    "--namespace": "namespace",
    "--config": "config",
    "--data-dir": "data_dir",
}


def settings(**more: object) -> Settings:
    """The settings, with this command line's on top. Raises ConfigError."""
    return load({**given, **{name: value for name, value in more.items() if value is not None}})


def arguments() -> list[str]:
    """The same options again, for a process of ours that shall see the same bus."""
    names = {name: option for option, name in OPTIONS.items()}
    return [f"{names[name]}={value}" for name, value in given.items()]


class Bus(msgspec.Struct):
    """A Redis that carries a bus, as commands that only ask or write to a door use it."""

    settings: Settings
    client: SyncClient
    keys: Keys

    def now(self) -> int:
        """Server time, µs."""
        seconds, micros = self.client.call("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    def state(self, until: str = "+") -> State:
        """The state as the hosts have it: newest snapshot and tail, with their own folds."""
        found = replay.rebuild(self.client, self.keys, until=until)
        found.price_lookup = prices.lookup
        return found

    def last_id(self) -> str:
        """The last id on the log, "0-0" for an empty one."""
        found = self.client.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else "0-0"

    def events_at(self, log_ids: list[str]) -> dict[str, Event]:
        """The events that stand at these places, in one round trip; what is gone is left out."""
        wanted = list(dict.fromkeys(log_ids))
        replies: list[Any] = self.client.pipeline(("XRANGE", self.keys.log, i, i) for i in wanted)
        entries: list[Any] = []
        for reply in replies:
            entries += reply if isinstance(reply, list) else ()
        return {event.log_id: event for event in replay.decoded(entries)}

    def send(self, kind: str, data: dict[str, object], entry_id: str | None = None) -> str:
        """One entry for the shared door; its entry id. ``entry_id`` is an idempotency key."""
        fields: list[str | bytes] = ["type", kind, "data", msgspec.json.encode(data)]
        if entry_id is not None:
            fields += ["id", entry_id]
        return self.client.call("XADD", self.keys.main_door, "*", *fields).decode()


@contextlib.contextmanager
def opened(**more: object) -> Generator[Bus]:
    """The bus that the options name. Raises AsbError where there is none."""
    chosen = settings(**more)
    client = SyncClient(resolve_url(chosen))
    try:
        yield Bus(chosen, client, Keys(chosen.namespace))
    finally:
        client.close()
