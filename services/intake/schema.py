"""What foreigners may write: reading an intake entry, checking names and sizes. PURE."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec

from events.document import moment
from events.harmless import OBEYED
from events.task import KINDS, PRIORITIES
from events.words import keyed_digest
from projections.charges import DISPUTES_MAX
from projections.state import State

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what no text of a task may hold
# Worker, agent: they become parts of keys.
NAME = re.compile(f"[^\\s{OBEYED}:*?\\[\\]{{}}]{{1,100}}\\Z")
LABEL = re.compile(f"[^\\t\\n{OBEYED}]{{1,200}}\\Z")  # model, project
TASK_ID = re.compile(f"[^\\s{OBEYED}*?\\[\\]{{}}]{{1,200}}\\Z")
_INTEGERS = frozenset(
    [
        "attempt",
        "timeout_s",
        "max_attempts",
        "estimate_tokens",
        "capacity",
        "lease_s",
        "v",
        "duration_ms",
    ]
)
_LISTS = frozenset(("after", "models"))
_BOOLEANS = frozenset(("heartbeat", "retryable", "final", "accept", "drop", "take_over", "started"))
_OBJECTS = frozenset(("holds", "document"))
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
OWN_TIME_US = 48 * 3600 * 1_000_000  # how far back a writer's own time counts, in reports
_ENVELOPE = frozenset((b"type", b"id", b"time"))


def check_disputes(state: State) -> None:
    """Foreign usage has nobody to answer for it: while very much is disputed, no more is taken."""
    if len(state.disputes) >= DISPUTES_MAX:
        raise Rejected(
            f"{len(state.disputes):,} reports are disputed already; `asb correct` settles them, "
            "`asb deadletter retry` then sends this one again"
        )


def unknown_task(task: str) -> str:
    """The one sentence for a task that this log does not know."""
    return f"task {task[:80]!r} is unknown"


class Rejected(Exception):
    """This entry cannot be accepted; the text says what, why and what would be right."""


def digest_of(kind: str, data: bytes, secret: bytes) -> str:
    """The meaning of an entry as the engine remembers it beside its idempotency key: the order of
    an object's fields and the blanks between them say nothing. Keyed by the secret of the bus,
    since data holds texts."""
    # What is no JSON stays as it was written; it is refused for that.
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        data = msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    return keyed_digest(kind.encode() + b"\0" + data, secret)


def read(fields: list[bytes]) -> tuple[str, str, bytes]:
    """The type, the given id ("" if none) and the data as a JSON object."""
    if len(fields) == 4 and fields[0] == b"type" and fields[2] == b"data":
        return _text(fields[1], "type"), "", fields[3]
    names = dict(zip(fields[0::2], fields[1::2], strict=False))
    if b"type" not in names:
        raise Rejected("no field 'type'; write `type task.submitted data '{…}'`")
    given = _text(names.get(b"id", b""), "id")
    if len(given) > 200 or CONTROL.search(given):
        raise Rejected("id must be at most 200 printable characters")
    raw = names[b"data"] if b"data" in names else _flat(names)
    return _text(names[b"type"], "type"), given, raw


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Rejected(f"{name} is not UTF-8") from None


def _flat(names: dict[bytes, bytes]) -> bytes:
    """Flat fields (``agent codex input_tokens 1500``) as the JSON object they stand for."""
    data: dict[str, Any] = {}
    for field, value in names.items():
        if field not in _ENVELOPE:
            name = _text(field, "a field name")
            data[name] = _flat_value(name, _text(value, name))
    return msgspec.json.encode(data)


def _flat_value(name: str, value: str) -> Any:
    if name in _INTEGERS:
        if not re.fullmatch(r"-?\d{1,18}", value.strip()):
            raise Rejected(f"{name} must be a whole number, not {value[:40]!r}")
        return int(value)
    if name in _BOOLEANS:
        if value.lower() not in _TRUTH:
            raise Rejected(f"{name} must be yes or no, not {value[:40]!r}")
        return _TRUTH[value.lower()]
    if name == "usage":
        return _usage_value(value)
    if name in _OBJECTS or (name in _LISTS and value.lstrip().startswith("[")):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise Rejected(f"{name} is not JSON: {error}") from None
    if name in _LISTS:
        return [part for part in value.replace(",", " ").split() if part]
    return value


def _usage_value(value: str) -> Any:
    """Usage in a flat field. What is not JSON stays a text, for its reader to judge: a figure that
    cannot be read must not lose the result beside it."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def decode(raw: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """``raw`` as the decoder's type. Raises Rejected with the reason."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise Rejected(f"data: {error}") from None
    except msgspec.DecodeError as error:
        raise Rejected(f"data is not valid JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise Rejected("data is not valid JSON: not UTF-8, or nested too deep") from None


def own_time(reported: int, now: int, earliest: int = 0) -> int:
    """A writer's own time ``reported``, µs, for the reports, where it can be true; else 0."""
    return reported if max(earliest, now - OWN_TIME_US) <= reported <= now else 0


def written_time(fields: list[bytes]) -> int:
    """The field ``time`` beside type and data, µs; 0 where there is none that can be read."""
    if len(fields) > 4 and b"time" in fields[0::2]:
        names = dict(zip(fields[0::2], fields[1::2], strict=False))
        return moment(names[b"time"].decode(errors="replace"))
    return 0


def check_name(value: str | None, what: str, pattern: re.Pattern[str] = NAME) -> None:
    if value is not None and not pattern.match(value):
        raise Rejected(
            f"{what} {value[:60]!r} must be short, without blanks, control characters, "
            "colons, brackets or wildcards"
            if pattern is NAME
            else f"{what} {value[:60]!r} must be short and without control characters or blanks"
        )


def is_label(value: str) -> bool:
    """Whether a name (a model, a project) may stand in public; see check_name."""
    return LABEL.match(value) is not None


def check_range(value: int | None, what: str, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise Rejected(f"{what} must be from {low:,} to {high:,}, not {value:,}")


def check_priority(value: str) -> None:
    if value not in PRIORITIES:
        raise Rejected(f"priority {value[:40]!r} is unknown; one of {', '.join(PRIORITIES)}")


def check_kind(value: str | None) -> None:
    if value is not None and value not in KINDS:
        raise Rejected(f"kind {value[:40]!r} is unknown; one of {', '.join(KINDS)}")


class _References(msgspec.Struct):
    task: str | None = None
    after: tuple[str, ...] = ()


_references = msgspec.json.Decoder(_References)


def task_references(fields: list[bytes]) -> tuple[str, ...]:
    """Ids of tasks that an entry names and the state may not remember: those of a submission (its
    own given one, and those it waits for), and that of a result."""
    if b"task.submitted" in fields:
        if len(fields) == 4 and b'"task"' not in fields[3] and b'"after"' not in fields[3]:
            return ()
    elif not (
        b"task.completed" in fields or b"task.failed" in fields or b"task.cancelled" in fields
    ):
        return ()
    try:
        _, _, raw = read(fields)
        references = _references.decode(raw)
    except (Rejected, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    return (references.task, *references.after) if references.task else references.after
