"""The canonical encoding of a state: sorted keys, integers and text only."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec.structs import replace

from projections.outcomes import Outcomes
from projections.records import (
    FORMAT,
    Block,
    Histogram,
    Learnt,
    Scope,
    Snapshot,
    Tallies,
    Worker,
)


def encode(outcomes: Outcomes, records: dict[str, Any]) -> bytes:
    """``records`` are all but the outcomes, by name. The same records give the same bytes, whatever
    order they came in.

    Sums have no bound. MessagePack's integers do: where one is beyond 64 bits, all such stand
    as decimal text, which reads back as the same integers.
    """
    try:
        return msgspec.msgpack.encode(_snapshot(records, outcomes.blocks(), wide=False))
    except OverflowError:
        outcomes.unpack_all()
        return _packed_wide(_snapshot(records, outcomes.blocks(_packed_wide), wide=True))


def _snapshot(records: dict[str, Any], blocks: list[Block], *, wide: bool) -> Snapshot:
    ordered = {name: _canonical(record) for name, record in records.items()}
    return Snapshot(format=FORMAT, wide=wide, outcomes=blocks, **ordered)


def _canonical(value: Any) -> Any:
    """``value`` with every dict in it sorted by key."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _canonical(item) for key, item in sorted(items)}
    if isinstance(value, Scope):
        return replace(value, hours=_canonical(value.hours), minutes=_canonical(value.minutes))
    if isinstance(value, Worker):
        return replace(value, running=_canonical(value.running))
    if isinstance(value, Learnt):
        return replace(value, tokens=_canonical(value.tokens), nanos=_canonical(value.nanos))
    if isinstance(value, Tallies):
        return _canonical_tallies(value)
    return value


def _canonical_tallies(tallies: Tallies) -> Tallies:
    durations = {
        key: Histogram(_canonical(histogram.counts), histogram.total_us)
        for key, histogram in sorted(tallies.durations.items())
    }
    return Tallies(
        _canonical(tallies.events),
        _canonical(tallies.alerts),
        durations,
        _canonical(tallies.returned),
        _canonical(tallies.differences),
    )


_BYTES = (bytes, msgspec.Raw)  # what is not to become text on its way


def _packed_wide(value: Any) -> bytes:
    return msgspec.msgpack.encode(_wide(msgspec.to_builtins(value, builtin_types=_BYTES)))


def _wide(value: Any) -> Any:
    """Plain ``value`` with every integer that MessagePack cannot hold as decimal text."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _wide(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_wide(item) for item in cast("list[Any]", value)]
    return value


# Not strict, so that a number that stands as text is read as one.
_decoder = msgspec.msgpack.Decoder(Snapshot, strict=False)


def decode(data: bytes) -> Snapshot | None:
    """The records; None where they are of another layout than this version's."""
    try:
        snapshot = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return snapshot if snapshot.format == FORMAT else None
