"""The one way out to a terminal: data on stdout, everything else on stderr, nothing that a terminal
obeys in either."""

from __future__ import annotations

import codecs
import io
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from events.harmless import harmless, harmless_json
from services.runtime import logs

logger = logging.getLogger("asb")

# What a terminal without Unicode sees instead, of the same width where the original stands in a
# table.
ASCII = {
    "🟢": "o ", "🟡": "! ", "🟠": "!!", "🔴": "# ", "🚨": "##", "⚫": "x ", "⚪": "- ",
    "✅": "ok", "❗": "! ", "⏳": "..", "…": "...", "→": "->", "·": "-", "×": "x", "≥": ">=",
    "─": "-", "━": "=", "╌": "-", "●": "*", "█": "#",
}  # fmt: skip


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """For an encoding that lacks a character: a stand-in, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    words = (ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(words), error.end


codecs.register_error("asb", _in_ascii)


def prepare() -> None:
    """Streams that can be written to whatever the locale, and whichever of them are closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # In the place of the closed one, so that no connection gets its number. What is
            # written to a closed stdout fails as it should; nobody hears a closed stderr.
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="asb")


def _shown(text: str) -> str:
    """As it may stand on a terminal: nothing that it obeys, and no secret."""
    from events.secrets import masked  # not for those who only ask for help

    return harmless(masked(text))


def say(text: str = "") -> None:
    """Data: a line on stdout."""
    sys.stdout.write(_shown(text) + "\n")


def note(text: str) -> None:
    """For the person at the terminal: a line on stderr."""
    if logs.as_json():
        logger.info("%s", text)
        return
    sys.stderr.write(_shown(text) + "\n")
    sys.stderr.flush()


def say_json(value: Any, *, pretty: bool = True) -> None:
    """``value`` as JSON: indented for a document, one line for a stream of them."""
    import msgspec  # not for those who only ask for help

    from events.secrets import masked_json

    encoded = masked_json(msgspec.json.encode(value))
    text = (msgspec.json.format(encoded, indent=2) if pretty else encoded).decode()
    whole = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    sys.stdout.write(harmless_json(text, ascii_only=not whole) + "\n")
    sys.stdout.flush()


def activation() -> list[str]:
    """What makes `asb` a command in a new terminal, where it lives in an environment of its own."""
    script = Path(sys.prefix, "bin", "activate")
    if sys.prefix == sys.base_prefix or not script.exists():
        return []
    here = Path.cwd()
    return [f". {script.relative_to(here) if script.is_relative_to(here) else script}"]


def width() -> int:
    """Columns to fill; 0 where the output goes to a file or program and must be whole."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def height() -> int:
    """Lines of the terminal; 0 where the output goes to a file or program."""
    return shutil.get_terminal_size().lines if sys.stdout.isatty() else 0
