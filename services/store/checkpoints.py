"""Checkpoints: states along the log, kept beside it, so that any past moment is near one.

They are a cache: what cannot be used is passed over, and the log is folded from further back. One
is kept every ``EVERY_EVENTS`` events while a snapshot is folded, at most ``NUMBER_MAX`` of them and
``BYTES_MAX`` bytes; beyond either, every such time the one goes whose neighbours are nearest. Ended
tasks, the bulk of a state, hardly differ from one to the next: their blocks are kept once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from events.keys import Keys
from events.log import after
from projections import encoding
from projections.records import Block, Snapshot
from projections.state import State
from services.runtime.errors import CommandRefused
from services.store.client import SyncClient
from services.store.log import stands

EVERY_EVENTS = 10_000
NUMBER_MAX = 128
BYTES_MAX = 64 * 1024 * 1024
LEVEL = 1  # of the compression: harder was measured half slower and 8 % smaller


class Checkpoint(msgspec.Struct, frozen=True, order=True):
    """Where a checkpoint stands: how many events it has folded, and the id of the last."""

    events: int
    log_id: str

    @property
    def field(self) -> str:
        return f"{self.events} {self.log_id}"


class Kept(msgspec.Struct, array_like=True):
    """A checkpoint as it is kept: the records without the ended tasks, compressed, and the digests
    of the blocks that hold those."""

    at: int  # the time of its last event, µs: an id that another event has is not enough
    records: bytes
    blocks: list[bytes]


_kept = msgspec.msgpack.Decoder(Kept)
_block = msgspec.msgpack.Decoder(Block)


def places(client: SyncClient, keys: Keys) -> list[Checkpoint]:
    """Where checkpoints stand, the oldest first; none where the key is of another type."""
    try:
        fields = client.call("HKEYS", keys.checkpoints)
    except CommandRefused:
        return []
    return sorted(_place(field.decode()) for field in fields)


def _place(field: str) -> Checkpoint:
    events, _, log_id = field.partition(" ")
    return Checkpoint(int(events), log_id)


def nearest(client: SyncClient, keys: Keys, until: str = "+") -> State | None:
    """The newest usable state that reaches no further than ``until``; None: there is none."""
    for place in reversed(places(client, keys)):
        if until != "+" and after(place.log_id, until):
            continue
        if (state := load(client, keys, place)) is not None:
            return state
    return None


def load(client: SyncClient, keys: Keys, place: Checkpoint) -> State | None:
    """The state of a checkpoint; None where it cannot be used."""
    data = client.call("HGET", keys.checkpoints, place.field)
    if not data:
        return None
    try:
        kept = _kept.decode(data)
        if not stands(client, keys, place.log_id, kept.at):
            return None
        snapshot = encoding.decode(zlib.decompress(kept.records))
        blocks = kept.blocks
        packed: Any = client.call("HMGET", keys.checkpoint_blocks, *blocks) if blocks else []
        if snapshot is None or None in packed:
            return None
        if kept.blocks:
            snapshot.outcomes = [_block.decode(zlib.decompress(each)) for each in packed]
        return State(snapshot)
    except (CommandRefused, msgspec.MsgspecError, zlib.error, ValueError, IndexError):
        return None


def keep(client: SyncClient, keys: Keys, state: State) -> None:
    """Keep ``state``. Raises CommandRefused where a key of ours is of another type."""
    snapshot = encoding.decode(state.encode())
    if snapshot is None:
        return
    blocks = _take_out(snapshot)
    kept = Kept(state.meta.at, _packed(snapshot), list(blocks))
    there: set[bytes] = set(client.call("HKEYS", keys.checkpoint_blocks))
    new: list[Any] = []
    for digest in kept.blocks:
        if digest not in there:
            new += (digest, zlib.compress(blocks[digest], LEVEL))
    if new:
        client.call("HSET", keys.checkpoint_blocks, *new)
    place = Checkpoint(state.meta.events, state.meta.log_id)
    client.call("HSET", keys.checkpoints, place.field, msgspec.msgpack.encode(kept))


def _packed(snapshot: Snapshot) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(snapshot), LEVEL)


def _take_out(snapshot: Snapshot) -> dict[bytes, bytes]:
    """The blocks of ended tasks by digest, out of ``snapshot``. A wide state keeps its own."""
    if snapshot.wide:
        return {}
    encoded = [msgspec.msgpack.encode(block) for block in snapshot.outcomes]
    snapshot.outcomes = []
    return {hashlib.blake2b(each, digest_size=16).digest(): each for each in encoded}


def forget_all(client: SyncClient, keys: Keys) -> None:
    """Drop all: the log is folded anew from its start, by another layout of records."""
    client.call("DEL", keys.checkpoints, keys.checkpoint_blocks)


def forget_before(client: SyncClient, keys: Keys, begins: str) -> None:
    """Drop those that stand before the log's beginning: it was cut there."""
    gone = [place.field for place in places(client, keys) if after(begins, place.log_id)]
    if gone:
        client.call("HDEL", keys.checkpoints, *gone)
        thin(client, keys)


def thin(
    client: SyncClient, keys: Keys, number_max: int = NUMBER_MAX, bytes_max: int = BYTES_MAX
) -> None:
    """Drop as many as bounds demand, then the blocks that no other needs."""
    known = places(client, keys)
    replies = client.pipeline(("HGET", keys.checkpoints, place.field) for place in known)
    data = {place: reply for place, reply in zip(known, replies, strict=True) if reply}
    blocks: dict[Checkpoint, list[bytes]] = {}
    for place, reply in data.items():
        try:
            blocks[place] = _kept.decode(reply).blocks
        except msgspec.MsgspecError:  # of another version
            blocks[place] = []
    sizes = _block_sizes(client, keys)
    kept = list(data)
    while kept and (len(kept) > number_max or _bytes(kept, data, blocks, sizes) > bytes_max):
        kept.remove(crowded(kept))
    if gone := [place.field for place in known if place not in kept]:
        client.call("HDEL", keys.checkpoints, *gone)
    needed = {digest for place in kept for digest in blocks[place]}
    if unneeded := [digest for digest in sizes if digest not in needed]:
        client.call("HDEL", keys.checkpoint_blocks, *unneeded)


def _block_sizes(client: SyncClient, keys: Keys) -> dict[bytes, int]:
    names: list[bytes] = client.call("HKEYS", keys.checkpoint_blocks)
    sizes = client.pipeline(("HSTRLEN", keys.checkpoint_blocks, name) for name in names)
    return dict(zip(names, sizes, strict=True))


def _bytes(
    kept: Iterable[Checkpoint],
    data: dict[Checkpoint, bytes],
    blocks: dict[Checkpoint, list[bytes]],
    sizes: dict[bytes, int],
) -> int:
    needed = {digest for place in kept for digest in blocks[place]}
    return sum(len(data[place]) for place in kept) + sum(sizes.get(x, 0) for x in needed)


def crowded(kept: list[Checkpoint]) -> Checkpoint:
    """The one of ``kept`` whose loss leaves the shortest way: its neighbours are nearest. The
    newest stays where there is another."""
    gaps = [
        (following.events - (before.events if before else 0), place)
        for before, place, following in zip([None, *kept], kept, kept[1:], strict=False)
    ]
    return min(gaps)[1] if gaps else kept[0]
