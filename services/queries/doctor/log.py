"""Doctor's look at the log and at asb's own keys: has a hand been there?"""

from __future__ import annotations

from collections.abc import Iterator

from events.keys import DUPLICATE_DAYS
from events.log import START, LogWentBack, after, begins
from projections.format import count
from projections.views import iso
from services.client.bus import Bus
from services.queries.doctor.findings import Look
from services.runtime.errors import AsbError, CommandRefused
from services.store import rebuild
from services.store.health import FactRow
from services.store.history import read_mark
from services.store.log import READ_COUNT

DAY_US = 86_400_000_000
RECENT_US = 7 * DAY_US  # for how long a log that went back is worth a warning
INDEXES = 1_000  # task indexes that are looked at
SHOWN = 10


def beginning(look: Look) -> Iterator[FactRow]:
    """Does the log begin with its first event, and did it go back?"""
    bus, meta = look.bus, look.state.meta
    first = rebuild.first_event(bus.client, bus.keys)
    mark = read_mark(bus.client, bus.keys)
    if mark is not None and mark.cut and first is not None and not after(first.log_id, mark.begins):
        value = f"archived up to {mark.begins}: {count(mark.entries, 'entry', 'entries')}"
        yield ("log's beginning", value, "ok", "")
    elif meta.events and (first is None or not begins(first)):
        where = first.log_id if first is not None else "nowhere"
        value = f"cut off by hand: it begins at {where}; a snapshot covers what stood before"
        hint = "keep that snapshot: without it the log is refused; a backup of Redis' data has both"
        yield ("log's beginning", value, "warn", hint)
    if not meta.went_back:
        return
    event = bus.events_at([meta.went_back]).get(meta.went_back)
    if event is None or type(event.data) is not LogWentBack:
        return
    payload = event.data
    recent = abs(look.now - event.at) < RECENT_US
    hint = (
        f"what came after {payload.now} is lost, and what it used; was Redis emptied, restored, or "
        "did a replica that was behind take over?"
    )
    value = f"from {payload.was} to {payload.now} at {iso(event.at)}"
    yield ("log went back", value, "warn" if recent else "ok", hint)


def entries(look: Look) -> Iterator[FactRow]:
    """As many entries as events: none of others between them, and none of ours missing."""
    bus, meta = look.bus, look.state.meta
    try:
        reply = bus.client.call("XINFO", "STREAM", bus.keys.log)
    except CommandRefused:
        return  # there is no log yet
    info = dict(zip(reply[0::2], reply[1::2], strict=True))
    top = info[b"last-entry"][0].decode() if info[b"last-entry"] else START
    tail = 0
    for batch in bus.read(meta.log_id, top):
        tail += len(batch)
    mark = read_mark(bus.client, bus.keys)
    if mark is not None and mark.swept != mark.cut:
        return  # it is being cut: the count is not to be trusted now
    archived = mark.entries if mark is not None else 0
    surplus = int(info[b"length"]) + archived - meta.events - tail
    if surplus > 0:
        place = meta.foreign_id or _newest_foreign(bus)
        look_at = f"redis-cli XRANGE {bus.keys.log} {place} {place}"
        shown = f"`{look_at}` shows the newest" if place else ""
        value = f"{count(surplus, 'entry', 'entries')} on the log that asb did not write: skipped"
        repair = f"{shown}, XDEL {bus.keys.log} {place} takes it away; the bus goes on either way"
        yield ("foreign entries", value, "warn", repair.lstrip(", "))
    first = rebuild.first_event(bus.client, bus.keys)
    if surplus < 0 and first is not None and (archived or begins(first)):
        value = f"{count(-surplus, 'event')} of the log were deleted by hand (XDEL)"
        hint = "a start from a snapshot still knows them; `asb replay --verify` shows what differs"
        yield ("missing events", value, "bad", hint)


def _newest_foreign(bus: Bus) -> str:
    """The newest foreign entry among the last on the log, "" where there is none."""
    foreign: list[str] = []
    last = bus.client.call("XREVRANGE", bus.keys.log, "+", "-", "COUNT", READ_COUNT)
    rebuild.decoded(last, foreign)
    return foreign[0] if foreign else ""


def key_types(look: Look) -> Iterator[FactRow]:
    """Keys of asb's own that hold something else than asb keeps there."""
    wanted = dict(_wanted(look))
    kinds = look.bus.client.pipeline(("TYPE", key) for key in wanted)
    wrong = [
        (key, kind.decode(), wanted[key])
        for key, kind in zip(wanted, kinds, strict=True)
        if isinstance(kind, bytes) and kind.decode() not in ("none", wanted[key])
    ]
    for key, kind, right in wrong[:SHOWN]:
        hint = (
            f"who needs it holds until it is gone: redis-cli RENAME {key} moved:{key}, or DEL; "
            "views and inboxes are written anew by themselves"
        )
        yield (f"key {key}", f"is a {kind}, not a {right}", "bad", hint)
    if len(wrong) > SHOWN:
        yield ("keys", f"and {len(wrong) - SHOWN:,} more of another type", "bad", "")


def _wanted(look: Look) -> Iterator[tuple[str, str]]:
    """Keys and the type each must be of, where it is there."""
    keys = look.bus.keys
    streams = (keys.log, keys.carried, keys.main_intake, keys.deadletter)
    yield from ((key, "stream") for key in streams)
    hashes = (keys.deadletter_marks, keys.checkpoints, keys.checkpoint_blocks)
    yield from ((key, "hash") for key in hashes)
    texts = (
        keys.secret,
        keys.snapshot,
        keys.alert_mark,
        keys.archive_mark,
        keys.throttle,
        keys.token_usage,
        keys.unregistered_intakes,
    )
    yield from ((key, "string") for key in texts)
    today = look.now // DAY_US
    yield from ((keys.duplicates(today - n), "hash") for n in range(DUPLICATE_DAYS + 1))
    try:
        state = look.state
    except (AsbError, CommandRefused):
        return  # the log's own check says why
    yield from ((intake, "stream") for intake in state.intakes)
    yield from ((keys.inbox(worker), "stream") for worker in state.workers)
    yield from ((keys.worker(worker), "string") for worker in state.workers)
    yield from ((keys.report(day), "string") for day in state.reports)
    tasks = list(state.tasks)[-INDEXES:]
    yield from ((keys.task_index(task), "list") for task in tasks)
