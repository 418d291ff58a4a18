"""What a progress document says: the JSON that agents write to ``asb:progress:<agent>:<task>``.

Agents write what they like: a whole object, a bare word (``"completed"``), a percentage, token
counts under names of their own. Nothing they write is refused for what it says, only for what it
is (not JSON, too long); what cannot be understood is left out here and stays in the document.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import msgspec

from events import readings
from events.tokens import Reading

COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
IN_PROGRESS, PENDING, UNKNOWN = "in_progress", "pending", "unknown"
ENDED = frozenset((COMPLETED, FAILED, CANCELLED))
NAME_MAX = 200  # characters of an agent or a task in a progress key
DEPTH_MAX = 100  # objects and lists within each other
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
BARE_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,60}\Z")

_WORDS = {
    COMPLETED: "completed complete done finished success successful succeeded ok passed closed "
    "resolved merged shipped",
    FAILED: "failed failure fail error errored crashed aborted broken timeout timed_out",
    CANCELLED: "cancelled canceled stopped skipped abandoned",
    IN_PROGRESS: "in_progress inprogress progress working started starting running active busy wip "
    "ongoing processing doing executing updating testing reviewing",
    PENDING: "pending queued todo waiting blocked paused planned new ready idle not_started",
}
STATUSES = {word: status for status, words in _WORDS.items() for word in words.split()}


class Totals(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Running totals as one document told them: disjoint parts, and the total it named itself."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    total_tokens: int = 0

    @property
    def parts(self) -> tuple[int, int, int, int]:
        return (
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
        )

    @property
    def total(self) -> int:
        """All tokens: the sum of the parts, or the total where that says more."""
        return max(self.total_tokens, sum(self.parts))

    def highest(self, other: Totals) -> Totals:
        """The running maximum of both, part by part."""
        mine = (*self.parts, self.total_tokens)
        theirs = (*other.parts, other.total_tokens)
        return Totals(*map(max, mine, theirs))


class ReadDocument(msgspec.Struct, frozen=True):
    """A document as asb understands it. ``percent`` is 0 … 100; ``at`` its own time in µs, 0 where
    it has none that can be read; ``flaw`` says what of its tokens contradicts itself or cannot be
    read."""

    status: str = UNKNOWN
    percent: int | None = None
    totals: Totals | None = None
    model: str = ""
    project: str = ""
    at: int = 0
    flaw: str = ""


def read(raw: bytes) -> ReadDocument:
    """What the document says. Raises ValueError where it is not JSON."""
    value = _decoded(raw)
    if isinstance(value, str):
        status = status_of(value)
        return ReadDocument(status, 100 if status == COMPLETED else None)
    if isinstance(value, int | float):  # a bare percentage
        return ReadDocument(UNKNOWN if isinstance(value, bool) else IN_PROGRESS, _percent(value))
    if not isinstance(value, dict):
        return ReadDocument()
    return _read(cast("dict[str, Any]", value))


def _read(doc: dict[str, Any]) -> ReadDocument:
    usage = readings.find(doc)
    status = status_of(doc.get("status", doc.get("state", "")))
    percent = _percent(doc.get("progress", doc.get("percent", doc.get("percentage"))))
    if percent is None and status == COMPLETED:
        percent = 100
    return ReadDocument(
        status,
        percent,
        _totals(usage.reading),
        _label(usage.model) or _label(doc.get("model")),
        _label(doc.get("project")),
        moment(doc.get("timestamp", doc.get("time", doc.get("updated_at")))),
        usage.reading.flag,
    )


def problem(agent: str, task: str, raw: bytes, bound: int) -> str:
    """Why this cannot be a progress document, "" when it can. ``most`` is its size in bytes."""
    for what, name in (("agent", agent), ("task", task)):
        if not name:
            return f"no {what}: the key is <namespace>:progress:<agent>:<task>"
        if len(name) > NAME_MAX or not name.isprintable():
            return f"{what} {name[:60]!r} must be at most {NAME_MAX} printable characters"
    if ":" in agent:
        return f"agent {agent[:60]!r} must not hold a colon: there the task begins"
    if len(raw) > bound:
        return f"document has more than {bound:,} bytes; put long material into a file and name it"
    try:
        _decoded(raw)
    except ValueError as error:
        return str(error)
    return ""


def as_json(value: bytes) -> bytes:
    """What an agent wrote, as JSON: a bare word becomes a string; blanks around it are left out."""
    value = value.strip(b" \t\r\n")
    text = value.decode("utf-8", "replace")
    if BARE_WORD.match(text) and text not in ("true", "false", "null"):
        return b'"' + text.encode() + b'"'
    return value


def status_of(word: object) -> str:
    """One of completed, failed, cancelled, in_progress, pending; ``unknown`` for anything else."""
    if not isinstance(word, str):
        return UNKNOWN
    return STATUSES.get(re.sub(r"[\s-]+", "_", word.strip().lower()), UNKNOWN)


def _decoded(raw: bytes) -> Any:
    try:
        value = msgspec.json.decode(raw)
        if _too_deep(raw):
            raise RecursionError
        return value
    except msgspec.MsgspecError as error:
        raise ValueError(f"document is not JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ValueError("document is not JSON: not UTF-8, or nested too deep") from None


def _too_deep(raw: bytes) -> bool:
    """Whether JSON is nested deeper than everybody can read, however deep in calls he is."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_MAX:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(raw):
        if bracket[0] in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                return True
        elif bracket[0] in b"]}":
            depth -= 1
    return False


# -- tokens ----------------------------------------------------------------------------------


def _totals(reading: Reading) -> Totals | None:
    """The running totals: the parts that were named, and the total. What of the total no part
    names stays unnamed here, so that parts told later are not counted beside it."""
    parts = reading.parts
    if parts is None:
        return None
    return Totals(
        parts.input_tokens,
        parts.output_tokens,
        parts.cache_read_tokens,
        parts.cache_write_tokens,
        parts.whole + reading.rest if reading.total is not None or reading.rest else 0,
    )


# -- the rest --------------------------------------------------------------------------------


def _percent(value: object) -> int | None:
    """``75``, ``75.4``, ``"75%"``, ``"75 %"``; written with a point and no per cent sign, up to
    and with ``1.0``, it is a share of one. An integer 1 is one per cent."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value if isinstance(value, str) else repr(value)
    match = re.match(r"\s*(-?)(\d{1,18}(?:(\.\d{1,20})|))\s*(%?)\s*\Z", text, re.ASCII)
    if match is None:
        return _far(value)
    figure = Decimal(match[2])
    if match[3] and not match[4] and figure <= 1:
        figure *= 100
    return 0 if match[1] else min(100, int(figure))


def _far(value: str | int | float) -> int | None:
    """Numbers too large or small to be written in full."""
    if isinstance(value, str):
        return None
    return 100 if value > 1 else 0


def _label(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX:
        return ""
    return value if value.isprintable() else ""


def moment(value: object) -> int:
    """An ISO date as µs since the epoch; without a zone it is taken as UTC. 0: not readable."""
    if not isinstance(value, str) or len(value) > 40:
        return 0
    try:
        when = datetime.fromisoformat(value)
        utc = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0, int(utc.timestamp()) * 1_000_000)
    except (ValueError, OverflowError):
        return 0
