"""The envelope: one event, as it stands on the log and as it is folded.

On the log an event is a stream entry with six fields in this order: ``type``, ``id``, ``source``,
``from``, ``at`` (server time, µs), ``data`` (a JSON object with an integer ``v``). The entry id
only orders. ``data`` is kept as it was written, so fields this version does not know survive.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

import msgspec

from events import secrets
from events.words import FORGOTTEN, TextMark, marks_of, nothings, private_fields

FIELDS = ("type", "id", "source", "from", "at", "data")


class Payload(msgspec.Struct, omit_defaults=True, gc=False):
    """The typed ``data`` of an event. ``type`` is its wire name, never the class name.

    Its private fields hold what is decided. On the wire they stand under ``words``, and an event
    that is read or folded has them empty: ``words_of`` and ``text_of`` read them from its data. A
    class whose fold needs the mark of a word has a field ``marks`` for it.
    """

    type: ClassVar[str]
    wire_version: ClassVar[int] = 1
    head: ClassVar[bytes] = b'{"v":1'  # how its data begins on the wire, with the version
    private: ClassVar[tuple[str, ...]] = ()
    blanks: ClassVar[tuple[tuple[str, Any], ...]] = ()  # the same, each with what is nothing


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
        cls.type, cls.private = name, private_fields(cls)
        cls.head = b'{"v":%d' % cls.wire_version
        cls.blanks = nothings(cls)
        _registry[name.encode()] = (cls, msgspec.json.Decoder(cls))
        return cls

    return register


def known_types() -> list[str]:
    """The wire types of this version."""
    return sorted(name.decode() for name in _registry)


def payload_class(name: str) -> type[Payload] | None:
    registered = _registry.get(name.encode())
    return registered[0] if registered else None


class Reported(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The numbers that the writer of a report told: tokens as they were read, the agent's own cost
    in nano-dollars, milliseconds, the bytes of a result that was cut, and how often it called a
    model."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    total_tokens: int = 0
    cost_nanos: int | None = None
    duration_ms: int | None = None
    result_bytes: int = 0
    truncated: bool = False
    calls: int | None = None


def encode(
    payload: Payload,
    secret: bytes,
    writers: Mapping[str, Any] | None = None,
    others: Mapping[str, Any] | None = None,
    reported: Reported | None = None,
) -> bytes:
    """``payload`` as wire bytes, ``v`` first and words last; their marks are keyed by ``secret``.

    ``writers`` are further private fields of whoever wrote it, ``others`` what he told beside
    the fields that asb knows, ``reported`` the numbers he told.
    """
    words: dict[str, Any] = {}
    for name, nothing in payload.blanks:  # taken out while the rest is encoded: a copy costs more
        if value := getattr(payload, name):
            words[name] = value
            setattr(payload, name, nothing)
    fields = _encoder.encode(payload)
    body = payload.head + (b"," + fields[1:] if fields != b"{}" else b"}")
    for name, value in words.items():
        setattr(payload, name, value)
    if not words and not writers and not others and reported is None:
        return body
    words = {**(writers or {}), **words}
    more: dict[str, Any] = {}
    if reported is not None:
        more["reported"] = reported
    if words or others:
        more["marks"] = marks_of(words, others or {}, secret)
        more["words"] = {**(others or {}), **words}
    return body[:-1] + b"," + _encoder.encode(more)[1:] if more else body


def blank(payload: Payload) -> None:
    """Empty its private fields."""
    for name, nothing in payload.blanks:
        setattr(payload, name, nothing)


def as_read(event: Event) -> Event:
    """``event`` as whoever reads it from the log has it: folds see this, so that what is decided
    and what is replayed are one."""
    if event.data.private:
        event.data = _registry[event.data.type.encode()][1].decode(event.raw)
    return event


class Beside(msgspec.Struct):
    """What stands in an event's data beside its payload. ``forgotten_at``: when (µs) its words were
    taken out; ``secrets``: how many of which kind were masked in them."""

    words: dict[str, msgspec.Raw] = {}
    marks: dict[str, TextMark] = {}
    reported: Reported = Reported()
    forgotten_at: int = 0
    secrets: dict[str, int] = {}


_beside = msgspec.json.Decoder(Beside)


def beside(event: Event) -> Beside:
    """What stands in the data of ``event`` beside its payload."""
    return _beside.decode(event.raw) if event.raw else Beside()


def beside_of(raw: bytes) -> Beside:
    """The same of bare data; nothing where that is not of an event."""
    try:
        return _beside.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Beside()


def read_word(value: bytes) -> Any:
    """A word as plain data. What nobody reads, such as a number beyond every range, is JSON all the
    same, and stands on the log: it is shown as it was written."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return bytes(value).decode("utf-8", "replace")


def words_of(event: Event) -> dict[str, Any]:
    """The words of an event: private fields, and what its writer told besides."""
    if not event.raw:  # decided, and not written yet
        return {name: getattr(event.data, name) for name in event.data.private}
    return {name: read_word(value) for name, value in beside(event).words.items()}


def text_of(event: Event, name: str) -> str:
    """A private text of an event, to be shown: secrets are masked, of a prompt too. "" where it has
    none, "forgotten" where it was taken out."""
    if not event.raw:
        return secrets.masked(cast("str", getattr(event.data, name, "")))
    parts = beside(event)
    value = read_word(parts.words[name]) if name in parts.words else ""
    if not value and parts.forgotten_at and name in parts.marks:
        return FORGOTTEN
    return secrets.masked(value if isinstance(value, str) else _encoder.encode(value).decode())


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WORDS = b'"words":'


def without_secrets(raw: bytes, kept: tuple[str, ...] = ()) -> bytes:
    """The data of an event with the secrets in its words masked, but for the words ``kept``, and
    how many of which kind beside them; as it is where there are none. Their marks stay those of
    what was written."""
    place = raw.find(_WORDS)
    if place < 0 or not secrets.may_hold(raw[place:]):
        return raw
    fields = _fields.decode(raw)
    counts: Counter[str] = Counter()
    words = {
        name: value if name in kept else msgspec.Raw(_masked_word(name, bytes(value), counts))
        for name, value in _fields.decode(fields["words"]).items()
    }
    if not counts:
        return raw
    rest = {name: value for name, value in fields.items() if name != "words"}
    return _encoder.encode({**rest, "secrets": dict(sorted(counts.items())), "words": words})


def _masked_word(name: str, value: bytes, counts: Counter[str]) -> bytes:
    """A word, read together with its name: that may say what it is."""
    seen: Counter[str] = Counter()
    clean = secrets.masked_value({name: read_word(value)}, seen)
    counts.update(seen)
    return _encoder.encode(next(iter(clean.values()))) if seen else value


def without_words(raw: bytes, at: int) -> bytes:
    """The data of an event with its words taken out at ``at`` (µs); as it is where it has none."""
    if raw.find(_WORDS) < 0:
        return raw
    fields: dict[str, Any] = dict(_fields.decode(raw))
    if fields.pop("words", None) is None:
        return raw
    return _encoder.encode({**fields, "forgotten_at": at})


def figures_of(raw: bytes) -> dict[str, msgspec.Raw]:
    """The data of an event without its words, whether they were taken out or not; nothing where it
    is not of an event."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value for name, value in fields.items() if name not in ("words", "forgotten_at")}


def decode(entry: Sequence[Any]) -> Event:
    """One raw stream entry ``[id, [field, value, …]]`` as an Event.

    Raises UnsupportedEvent for what this version must not skip over, and ForeignEntry for what no
    asb has written: without the six fields in their order, or with contents that an event of this
    type and version never has.
    """
    log_id, f = entry
    registered = _registry.get(f[1])
    if registered is None or len(f) < 12 or f[0] != b"type" or f[10] != b"data":
        return _unregistered(log_id, f)
    raw = f[11]
    if not raw.startswith(b'{"v":1,') and _version(raw) > registered[0].wire_version:
        return _unregistered(log_id, f)
    place = log_id.decode()
    try:
        data = registered[1].decode(raw)
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
