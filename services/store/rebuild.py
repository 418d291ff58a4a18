"""State from the log: the newest snapshot, then the tail, with the folds every host uses."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, MutableSequence
from contextlib import contextmanager
from pathlib import Path

from events.envelope import Event
from events.keys import Keys
from events.log import begins
from projections import fold
from projections.state import State, decode_state
from services.runtime.errors import BeginningLost, CommandRefused, RedisUnavailable
from services.runtime.failpoints import point
from services.store import checkpoints
from services.store.client import SyncClient
from services.store.history import History
from services.store.log import START, after, decoded, owned, stands

__all__ = ["decoded", "load_snapshot", "owned", "read_log", "rebuild", "write_snapshot"]


def read_log(
    client: SyncClient,
    keys: Keys,
    cursor: str = START,
    until: str = "+",
    foreign: MutableSequence[str] | None = None,
    *,
    archives: Path | None = None,
) -> Iterator[list[Event]]:
    """The events after ``cursor``, in batches, those that left Redis too: ``archives`` is the
    folder of all archives on this host. The next batch comes while the caller works on one. Foreign
    entries are left out; their ids go to ``foreign``. Raises LogError for what must not be skipped,
    and as `History.entries`."""
    for entries in History(client, keys, archives).entries(cursor, until):
        yield decoded(entries, foreign)


def load_snapshot(client: SyncClient, keys: Keys) -> State | None:
    """The newest snapshot, if this version can read it and its place is still on the log. It is a
    cache: a key of another type in its place is as good as none."""
    try:
        data = client.call("GET", keys.snapshot)
    except CommandRefused:
        return None
    state = decode_state(data) if data else None
    if state is None:
        return None
    return state if stands(client, keys, state.meta.log_id, state.meta.at) else None


def rebuild(
    client: SyncClient,
    keys: Keys,
    *,
    until: str = "+",
    snapshot: bool = True,
    progress: Callable[[int], None] | None = None,
    foreign: MutableSequence[str] | None = None,
    archives: Path | None = None,
) -> State:
    """The state at ``until`` (the end of the log by default). ``archives``: see `read_log`.

    Raises LogError where the log holds what must not be skipped, and where it has lost its
    beginning and neither a snapshot nor an archive knows what stood there.
    """
    with _no_looking_for_cycles():
        state = _base(client, keys, until) if snapshot else None
        if state is None:
            check_beginning(client, keys, archives=archives)
            beside = History(client, keys, archives).state(until) if snapshot else None
            state = beside if beside is not None else State()
        base, at = state.meta.log_id, state.meta.at
        for events in read_log(client, keys, base, until, foreign, archives=archives):
            for event in events:
                fold.apply(state, event)
            if progress is not None:
                progress(len(events))
        _check_one_past(client, keys, base, at)
    return state


def _check_one_past(client: SyncClient, keys: Keys, base: str, at: int) -> None:
    """Raise RedisUnavailable unless the log still holds ``base``, from which on it was read: where
    a replica took over meanwhile that lacks it, what was read after it is of another past."""
    if stands(client, keys, base, at):
        return
    first = client.call("XRANGE", keys.log, "-", "+", "COUNT", 1)
    if first and not after(first[0][0].decode(), base):  # else it was cut there
        raise RedisUnavailable("the log went back while it was read", hint="it is read again")


def _base(client: SyncClient, keys: Keys, until: str) -> State | None:
    """The state in Redis to begin with: the newest that reaches no further than ``until``."""
    state = load_snapshot(client, keys)
    if state is None or (until != "+" and after(state.meta.log_id, until)):
        return checkpoints.nearest(client, keys, until)
    return state


# -- the log's beginning ---------------------------------------------------------------------------


NOT_COVERED = "no snapshot covers it"


def check_beginning(
    client: SyncClient, keys: Keys, so: str = NOT_COVERED, *, archives: Path | None = None
) -> None:
    """Raise BeginningLost unless the log is empty, begins with its first event, or was archived up
    to where it begins now.

    Without its beginning it knows no limits, and not what was used: nothing may be decided on it.
    ``so`` says what follows, where that is another thing.
    """
    given_out = _given_out(client, keys)  # before the look: a log may begin at any moment
    first = first_event(client, keys)
    if first is None and START in (given_out, _given_out(client, keys)):
        return
    if first is not None and begins(first):
        return
    if first is not None and History(client, keys, archives).covers(first.log_id):
        return
    where = f"it begins at {first.log_id}" if first is not None else "every entry was deleted"
    raise BeginningLost(
        f"the log {keys.log} has lost its beginning, and {so}: {where}, so the "
        "limits, prices and what was used before do not stand on it",
        hint=(
            "was it trimmed by hand (XTRIM, MAXLEN, XDEL)? Restore Redis' data from before; where "
            "a host still runs it keeps a snapshot within seconds: try again. To forget what was "
            f"used and begin a new log: redis-cli RENAME {keys.log} {keys.log}:cut (what came to "
            "the intake within the last hour is then taken again)"
        ),
    )


def first_event(client: SyncClient, keys: Keys) -> Event | None:
    """The first event on the log; foreign entries before it do not count."""
    cursor = START
    while True:
        entries = client.call("XRANGE", keys.log, f"({cursor}", "+", "COUNT", 10)
        if not entries:
            return None
        cursor = entries[-1][0].decode()
        if events := decoded(entries):
            return events[0]


def _given_out(client: SyncClient, keys: Keys) -> str:
    """The last id that the log gave out, "0-0" where there is no log."""
    try:
        reply = client.call("XINFO", "STREAM", keys.log)
    except CommandRefused:  # no such key
        return START
    return dict(zip(reply[0::2], reply[1::2], strict=True))[b"last-generated-id"].decode()


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


def write_snapshot(
    client: SyncClient,
    keys: Keys,
    every_events: int = checkpoints.EVERY_EVENTS,
    archives: Path | None = None,
) -> tuple[State, int]:
    """Fold up to the end of the log and keep the result; that state and its size in bytes. On the
    way a checkpoint is kept every ``every_events``."""
    state = _with_checkpoints(client, keys, every_events, archives)
    data = state.encode()
    point("snapshot.before_set")
    client.call("SET", keys.snapshot, data)
    return state, len(data)


def _with_checkpoints(
    client: SyncClient, keys: Keys, every_events: int, archives: Path | None
) -> State:
    with _no_looking_for_cycles():
        state = _base(client, keys, "+")
        if state is None:
            check_beginning(client, keys, archives=archives)
            state = History(client, keys, archives).state() or State()
            checkpoints.forget_all(client, keys)
        last = max((place.events for place in checkpoints.places(client, keys)), default=0)
        base, at = state.meta.log_id, state.meta.at
        newest = client.call("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
        end = newest[0][0].decode() if newest else "+"  # what comes meanwhile is for the next one
        for events in read_log(client, keys, base, end, archives=archives):
            for event in events:
                fold.apply(state, event)
            if state.meta.events - last >= every_events:
                _check_one_past(client, keys, base, at)
                checkpoints.keep(client, keys, state)
                last = state.meta.events
        checkpoints.thin(client, keys)
        _check_one_past(client, keys, base, at)
    return state
