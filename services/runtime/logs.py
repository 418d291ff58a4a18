"""What services and workers have to say, on standard error: for people, or JSON for programs."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec

from events.harmless import harmless
from events.secrets import masked

LogFormat = Literal["text", "json"]
_ID = re.compile(r"\d{10,}-\d+")  # of the log, of an intake entry, of a session


class LogLine(msgspec.Struct, omit_defaults=True):
    """One line for programs. ``ids``: those the message names, for who will not parse it."""

    at: str
    level: str
    message: str
    host: str
    pid: int
    ids: tuple[str, ...] = ()
    error: str = ""


class JsonLines(logging.Formatter):
    """A JSON object a line."""

    def __init__(self) -> None:
        super().__init__()
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, whatever stands in it."""
        message = masked(record.getMessage())
        line = LogLine(
            datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            record.levelname.lower(),
            message,
            self._host,
            os.getpid(),
            tuple(dict.fromkeys(_ID.findall(message))),
            masked(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()


class HarmlessLines(logging.Formatter):
    """A line as a person reads it; it may quote what agents wrote."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with nothing in it that a terminal would obey."""
        return harmless(masked(super().format(record)))


def to_stderr(kind: LogFormat, level: int = logging.INFO) -> None:
    """From here on this process logs to its standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else HarmlessLines("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def as_json() -> bool:
    """Whether lines for programs were asked for: then notes to people go the same way."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonLines) for handler in handlers)
