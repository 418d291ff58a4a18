"""A running bus, as those who only ask it or write to an intake see it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator

import msgspec

from events.envelope import Event, without_words
from events.keys import Keys
from events.secrets import masked_json
from projections.state import State
from services.runtime import prices
from services.runtime.settings import Settings, load
from services.store import rebuild
from services.store.carried import entries_at
from services.store.client import SyncClient
from services.store.embedded import resolve_url
from services.store.history import History, folder_of
from services.store.log import START
from services.store.secret import secret_of


class Bus(msgspec.Struct):
    """A Redis that carries a bus, as commands that only ask or write to an intake use it."""

    settings: Settings
    client: SyncClient
    keys: Keys

    def now(self) -> int:
        """Server time, µs."""
        seconds, micros = self.client.call("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    def state(self, until: str = "+") -> State:
        """The state as the hosts have it: newest snapshot and tail, with their own folds."""
        folded = rebuild.rebuild(
            self.client, self.keys, until=until, archives=folder_of(self.settings)
        )
        folded.price_lookup = prices.lookup
        return folded

    @property
    def secret(self) -> bytes:
        """What keys the digests of texts on this bus; b"" before its first host."""
        return secret_of(self.client, self.keys)

    @property
    def history(self) -> History:
        """The whole log: what was archived of it, too, as far as its files are on this host."""
        return History(self.client, self.keys, folder_of(self.settings))

    def read(self, since: str = START, until: str = "+") -> Iterator[list[Event]]:
        """The events after ``since``, in batches, those that left Redis too. Raises as
        `History.entries`, and LogError for what must not be skipped."""
        for entries in self.history.entries(since, until):
            yield rebuild.decoded(entries)

    def check_beginning(self, so: str) -> None:
        """Raise BeginningLost, which says ``so``, unless the log can be folded from its start."""
        folder = folder_of(self.settings)
        rebuild.check_beginning(self.client, self.keys, so, archives=folder)

    def last_id(self) -> str:
        """The last id on the log, "0-0" for an empty one."""
        reply = self.client.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
        return reply[0][0].decode() if reply else "0-0"

    def events_at(self, log_ids: Iterable[str]) -> dict[str, Event]:
        """The events that stand at these places, or stood there until they were archived; what is
        gone is left out."""
        wanted = list(dict.fromkeys(log_ids))
        there = entries_at(self.client, self.keys, wanted)
        there |= self.history.at(place for place in wanted if place not in there)
        entries = [there[place] for place in wanted if place in there]
        return {event.log_id: event for event in self.shown(rebuild.decoded(entries))}

    def shown(self, events: list[Event]) -> list[Event]:
        """Events as they may be shown: of a forgotten task without words, wherever these stand."""
        forgotten = set(self.client.call("HKEYS", self.keys.forgotten)) if events else ()
        for event in events if forgotten else ():
            if getattr(event.data, "task", "").encode(errors="surrogatepass") in forgotten:
                event.raw = without_words(event.raw, 1)
        return events

    def send(self, kind: str, data: dict[str, object], entry_id: str | None = None) -> str:
        """One entry for the shared intake, without secrets (no submission: its prompt is handed on
        as it is); its entry id. ``entry_id`` is an idempotency key."""
        fields: list[str | bytes] = ["type", kind, "data", masked_json(msgspec.json.encode(data))]
        if entry_id is not None:
            fields += ["id", entry_id]
        return self.client.call("XADD", self.keys.main_intake, "*", *fields).decode()


@contextlib.contextmanager
def opened(settings: Settings) -> Generator[Bus]:
    """The bus that ``settings`` name. Raises AsbError where there is none."""
    keys = Keys(settings.namespace)
    client = SyncClient(resolve_url(settings), keys.log)
    try:
        yield Bus(settings, client, keys)
    finally:
        client.close()


class BusUser:
    """Something that uses a running bus until it is closed. Raises AsbError where none runs."""

    def __init__(
        self,
        redis_url: str | None = None,
        namespace: str | None = None,
        settings: Settings | None = None,
        *,
        bus: Bus | None = None,
    ) -> None:
        """``bus``: one that is open already, and stays so; else the one that the rest names."""
        if bus is not None:
            self._opened: contextlib.AbstractContextManager[Bus] = contextlib.nullcontext(bus)
            self._bus = self._opened.__enter__()
            return
        given = {"redis_url": redis_url, "namespace": namespace}
        named = {name: value for name, value in given.items() if value is not None}
        self._opened = opened(settings or load(named))
        self._bus = self._opened.__enter__()

    def close(self) -> None:
        self._opened.__exit__(None, None, None)
