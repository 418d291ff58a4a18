"""The envelope: one event, as it stands on the log and as it is folded.

On the log an event is a stream entry with six fields in this order: ``type``, ``id``, ``source``,
``from``, ``at`` (server time, µs), ``data`` (a JSON object with an integer ``v``). The entry id
only orders. ``data`` is kept as it was written, so fields this version does not know survive.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import msgspec

FIELDS = ("type", "id", "source", "from", "at", "data")


class Payload(msgspec.Struct, omit_defaults=True, gc=False):
    """The typed ``data`` of an event. ``type`` is its wire name, never the class name."""

    type: ClassVar[str]
    wire_version: ClassVar[int] = 1


if TYPE_CHECKING:  # a bare ``Event`` is an event of any type; no module is loaded for saying so
    from typing_extensions import TypeVar

    P = TypeVar("P", bound=Payload, default=Any, covariant=True)
else:
    from typing import TypeVar

    P = TypeVar("P")


class Event(msgspec.Struct, Generic[P], gc=False):
    """One fact. ``at`` is server time in µs since the epoch; ``log_id`` its place on the log."""

    data: P
    at: int = 0
    log_id: str = ""
    source: str = ""  # who says so: a service, or the intake it came through
    origin: str = ""  # the wire's "from": intake and entry id, "" for a decision
    id: str = ""
    raw: bytes = b""  # data as written on the wire

    @property
    def type(self) -> str:
        return self.data.type


class UnsupportedEvent(Exception):
    """An event of an unknown type or a newer version, which is not marked ``optional``."""


class ForeignEntry(Exception):
    """An entry that asb did not write: readers skip and count it."""


_registry: dict[bytes, tuple[type[Payload], msgspec.json.Decoder[Any]]] = {}
_encoder = msgspec.json.Encoder()


def wire(name: str) -> Any:
    """Class decorator: this payload's wire type is the literal ``name``."""

    def register(cls: type[Payload]) -> type[Payload]:
        cls.type = name
        _registry[name.encode()] = (cls, msgspec.json.Decoder(cls))
        return cls

    return register


def known_types() -> list[str]:
    """The wire types of this version."""
    return sorted(name.decode() for name in _registry)


def payload_class(name: str) -> type[Payload] | None:
    found = _registry.get(name.encode())
    return found[0] if found else None


def encode(payload: Payload) -> bytes:
    """``payload`` as wire bytes, ``v`` first."""
    body = _encoder.encode(payload)
    head = b'{"v":%d' % payload.wire_version
    return head + body[1:] if body == b"{}" else head + b"," + body[1:]


def decode(entry: Sequence[Any]) -> Event:
    """One raw stream entry ``[id, [field, value, …]]`` as an Event.

    Raises UnsupportedEvent for what this version must not skip over, and ForeignEntry for what no
    asb has written: without the six fields in their order, or with contents that an event of this
    type and version never has.
    """
    log_id, f = entry
    found = _registry.get(f[1])
    if found is None or len(f) < 12 or f[0] != b"type" or f[10] != b"data":
        return _unregistered(log_id, f)
    raw = f[11]
    if not raw.startswith(b'{"v":1,') and _version(raw) > found[0].wire_version:
        return _unregistered(log_id, f)
    place = log_id.decode()
    try:
        data = found[1].decode(raw)
        if not f[9].isdigit():  # int() takes more than digits
            raise ValueError(f"at {f[9]!r}")
        return Event(data, int(f[9]), place, f[5].decode(), f[7].decode(), f[3].decode(), raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ForeignEntry(f"entry {place} ({f[1].decode()}): {error}") from error


class _Head(msgspec.Struct):
    v: int
    optional: bool = False


class Unknown(Payload):
    """An event this version does not know and may skip."""

    wire_type: str = ""


Unknown.type = ""
_head = msgspec.json.Decoder(_Head)
_NAMES = [name.encode() for name in FIELDS]


def _version(raw: bytes) -> int:
    try:
        return _head.decode(raw).v
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return sys.maxsize  # what cannot be read is not of this version


def _unregistered(log_id: bytes, f: Sequence[bytes]) -> Event:
    """An event of another version of asb, or an entry of somebody else."""
    place = log_id.decode()
    try:
        if list(f[0:12:2]) != _NAMES:
            raise ValueError("not the six fields of an event")
        head, wire_type = _head.decode(f[11]), f[1].decode()
        at, source, origin, event_id = int(f[9]), f[5].decode(), f[7].decode(), f[3].decode()
    except (msgspec.MsgspecError, IndexError, ValueError, RecursionError) as error:
        raise ForeignEntry(f"entry {place} of the log is not an event of asb: {error}") from error
    if not head.optional:
        raise UnsupportedEvent(
            f"entry {place} has type {wire_type!r} version {head.v}, "
            "which this version of asb does not know"
        )
    return Event(Unknown(wire_type), at, place, source, origin, event_id, f[11])
