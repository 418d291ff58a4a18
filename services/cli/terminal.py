"""The one way out to a terminal: data on stdout, everything else on stderr."""

from __future__ import annotations

import logging
import shutil
import sys
from typing import Any

import msgspec


def say(text: str = "") -> None:
    """Data: a line on stdout."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """For the person at the terminal: a line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: Any, *, pretty: bool = True) -> None:
    """``value`` as JSON: indented for a document, one line for a stream of them."""
    encoded = msgspec.json.encode(value)
    say((msgspec.json.format(encoded, indent=2) if pretty else encoded).decode())
    sys.stdout.flush()


def width() -> int:
    """Columns to fill; 0 where the output goes to a file or program and must be whole."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def height() -> int:
    """Lines of the terminal; 0 where the output goes to a file or program."""
    return shutil.get_terminal_size().lines if sys.stdout.isatty() else 0


def logs_to_stderr() -> None:
    """What services and workers have to say goes to stderr, one line each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
