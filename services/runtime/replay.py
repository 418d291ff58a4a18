"""State from the log: the newest snapshot, then the tail, with the folds every host uses."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from events.envelope import Event, UnsupportedEvent, decode
from events.keys import Keys
from projections.state import State, decode_state
from services.runtime.client import SyncClient
from services.runtime.errors import LogError
from services.runtime.log import READ_COUNT, START, after
from services.runtime.points import point


def read_log(
    client: SyncClient, keys: Keys, cursor: str = START, until: str = "+"
) -> Iterator[list[Event]]:
    """The events after ``cursor``, in batches. Raises LogError for what must not be skipped."""
    while True:
        entries = client.call("XRANGE", keys.log, f"({cursor}", until, "COUNT", READ_COUNT)
        if entries:
            cursor = entries[-1][0].decode()
            yield decoded(entries)
        if len(entries) < READ_COUNT:
            return


def decoded(entries: list[list[bytes]]) -> list[Event]:
    """Raw entries of the log as events. Raises LogError."""
    try:
        return [decode(entry) for entry in entries]
    except (UnsupportedEvent, IndexError, ValueError) as error:
        raise LogError(
            f"cannot go on: {error}",
            hint="was it written by a newer asb (upgrade this one), or by something else?",
        ) from error


def load_snapshot(client: SyncClient, keys: Keys) -> State | None:
    """The newest snapshot, if this version can read it and its place is still on the log."""
    data = client.call("GET", keys.snapshot)
    state = decode_state(data) if data else None
    if state is None:
        return None
    place = state.meta.log_id
    known = place == START or client.call("XRANGE", keys.log, place, place)
    return state if known else None


def rebuild(
    client: SyncClient,
    keys: Keys,
    *,
    until: str = "+",
    snapshot: bool = True,
    progress: Callable[[int], None] | None = None,
) -> State:
    """The state at ``until`` (the end of the log by default)."""
    with _no_looking_for_cycles():
        state = load_snapshot(client, keys) if snapshot else None
        if state is None or (until != "+" and after(state.meta.log_id, until)):
            state = State()
        for events in read_log(client, keys, state.meta.log_id, until):
            for event in events:
                state.apply(event)
            if progress is not None:
                progress(len(events))
    return state


@contextmanager
def _no_looking_for_cycles() -> Generator[None]:
    """Folding makes a million records and no cycles; looking for them would take seconds."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_snapshot(client: SyncClient, keys: Keys) -> tuple[State, int]:
    """Fold up to the end of the log and keep the result; that state and its size in bytes."""
    state = rebuild(client, keys)
    data = state.encode()
    point("snapshot.before_set")
    client.call("SET", keys.snapshot, data)
    return state, len(data)
