"""Files of JSON lines in which agents keep what was said: read as far as they can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from services.worker.drivers.loose import text_in
from services.worker.usage import as_object

LINES = 200_000  # of one file
LINE_BYTES = 32 * 2**20
_SLACK_US = 2_000_000  # between our clock and the agent's rounding


def lines_of(path: Path, most_lines: int) -> Iterator[dict[str, Any]]:
    """The objects in a file, one a line; what is none is left out, as is what cannot be read."""
    try:
        with path.open("rb") as file:
            for _ in range(most_lines):
                line = file.readline(LINE_BYTES)
                if not line:
                    return
                entry = as_object(line)
                if entry is not None:
                    yield entry
    except OSError:
        return


def is_session(name: str) -> bool:
    """Whether ``name`` may be the id of a session, and so a part of a pattern of files."""
    return bool(name) and all(c.isalnum() or c in "-_" for c in name)


def is_since(entry: Mapping[str, Any], since: int) -> bool:
    """Whether a line was written at ``since`` (µs) or later; a line without a time was."""
    try:
        moment = datetime.fromisoformat(text_in(entry, "timestamp"))
    except ValueError:
        return True
    return moment.timestamp() * 1e6 >= since - _SLACK_US
