"""Output formats of commands: ``text``, and ``json`` and ``jsonl`` where the user names them.

A format is named for a program whose standard output is wholly its own, so that what stands there
as usage is the program's word, never its answer's. Output is parsed while it comes, whole, and
gives besides the usage the answer's text and what the program says of its failure.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from events.readings import Report, find
from services.worker.process.supervised import Tail
from services.worker.usage import as_object

TEXT, JSON, JSONL = "text", "json", "jsonl"
FORMATS = (TEXT, JSON, JSONL)
WHOLE_BYTES = 32 * 2**20  # the longest object of a format; what is longer is not read
ANSWER_CHARACTERS = 2**20  # kept of an answer that comes in pieces, its end

_TEXTS = ("response", "answer", "output_text", "output", "text", "completion", "content", "message")
_NOT_THE_AGENT = ("user", "system", "tool", "init", "error", "log", "event", "start")


class Text(Tail):
    """Output without a format: the answer is its end, and nothing in it is usage."""

    report = Report()
    error = ""
    failed = False
    unreadable = False

    def close(self) -> None:
        """The output is over."""

    def answer(self) -> tuple[str, int]:
        """The answer's text, and how many bytes of it are left out before."""
        return self.text(), self.left_out


class _Parsed(Text):
    """What objects of a program say, one after the other; the last word counts."""

    def __init__(self) -> None:
        super().__init__()
        self.report = Report()
        self.unreadable = False  # nothing of the output was of the format
        self._answer: str | None = None
        self._in_pieces = False

    def answer(self) -> tuple[str, int]:
        return super().answer() if self._answer is None else (self._answer, 0)

    def take(self, entry: dict[str, Any]) -> None:
        """Another object of the program's."""
        report = find(entry)
        if report.reading.says_something:
            self.report = report
        kind = entry.get("type")
        self.error = _error_of(entry) or self.error
        if kind in (None, "result", "turn.completed", "turn.failed"):
            self.failed = (
                entry.get("is_error") is True
                or kind == "turn.failed"
                or (kind == "result" and entry.get("status") == "error")
            )
        piece = entry.get("delta") is True
        text = _text_of(entry)
        if text is not None:
            joined = (self._answer or "") + text if piece and self._in_pieces else text
            self._answer = joined[-ANSWER_CHARACTERS:] if piece else joined
        self._in_pieces = piece and text is not None


class Json(_Parsed):
    """Standard output is one object, laid out as it likes (or an array of them)."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        if self.total <= WHOLE_BYTES:
            self._whole.append(chunk)
        else:
            self._whole.clear()

    def close(self) -> None:
        whole = b"".join(self._whole)
        self._whole.clear()
        entry = as_object(whole)
        entries = [entry] if entry is not None else _array(whole)
        for entry in entries:
            self.take(entry)
        self.unreadable = not entries


class Jsonl(_Parsed):
    """Standard output is an object a line; lines that are none are noise."""

    def __init__(self) -> None:
        super().__init__()
        self._line = bytearray()
        self._skipping = False  # a line that is too long
        self._objects = 0

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._more(line)
            self._end_line()
        self._more(rest)

    def _more(self, piece: bytes) -> None:
        if not self._skipping:
            self._line += piece
            if len(self._line) > WHOLE_BYTES:
                self._line.clear()
                self._skipping = True

    def _end_line(self) -> None:
        entry = as_object(bytes(self._line)) if self._line else None
        self._line.clear()
        self._skipping = False
        if entry is not None:
            self._objects += 1
            self.take(entry)

    def close(self) -> None:
        self._end_line()
        self.unreadable = not self._objects


def output(name: str) -> Text:
    """What reads the standard output of a command of format ``name``, one of FORMATS."""
    return {TEXT: Text, JSON: Json, JSONL: Jsonl}[name]()


def _array(data: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(data.strip(), type=list[dict[str, Any]])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []


# -- what programs say -------------------------------------------------------------------------


def _text_of(entry: dict[str, Any]) -> str | None:
    """The answer's text in one object, None where it holds none."""
    if isinstance(entry.get("result"), str):
        return entry["result"]
    kind, role = entry.get("type"), entry.get("role")
    inner = _dict(entry.get("item"))
    if inner:  # Codex
        text = inner.get("text") if inner.get("type") == "agent_message" else None
        return text if isinstance(text, str) else None
    if isinstance(kind, str) and any(word in kind for word in _NOT_THE_AGENT):
        return None
    if role not in (None, "assistant", "model") or entry.get("parent_tool_use_id"):
        return None
    text = next((t for name in _TEXTS if isinstance(t := entry.get(name), str)), None)
    if text is not None:
        return text
    message = _dict(entry.get("message")) or _dict(_first(entry.get("choices")).get("message"))
    content = message.get("content", entry.get("content"))
    if isinstance(content, str):
        return content
    pieces = cast("list[Any]", content) if isinstance(content, list) else []
    texts = [_dict(piece).get("text") for piece in pieces]
    said = "".join(text for text in texts if isinstance(text, str))
    return said or None


def _error_of(entry: dict[str, Any]) -> str:
    """What one object says of a failure, "" where it says nothing."""
    error = entry.get("error") or _first(entry.get("errors")) or _first_text(entry.get("errors"))
    if isinstance(error, dict):
        inner = cast("dict[str, Any]", error)
        error = inner.get("message") or inner.get("error") or inner.get("code")
    if not error and entry.get("type") == "error":
        error = entry.get("message")
    if not error and entry.get("is_error") is True:
        error = entry.get("result") or entry.get("subtype")
    return str(error).strip() if isinstance(error, str | int) and error is not True else ""


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _first(value: Any) -> dict[str, Any]:
    return _dict(cast("list[Any]", value)[0]) if isinstance(value, list) and value else {}


def _first_text(value: Any) -> str:
    first = cast("list[Any]", value)[0] if isinstance(value, list) and value else ""
    return first if isinstance(first, str) else ""
