"""Text that others wrote, made harmless before a terminal reads it. PURE.

A terminal obeys control characters: those of ASCII (C0, among them ESC, which begins colours,
titles and clipboard orders), those of Latin-1 (C1, ESC by other means) and those that turn the
direction of writing (bidi). They are shown as what they are, ``\\x1b``, and obeyed no more.
"""

from __future__ import annotations

import re

# A class for regular expressions. Line ends and tabs are not in it; text may have those.
OBEYED = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
)
_OBEYED = re.compile(f"[{OBEYED}]")
_BREAKS = re.compile(r"[\t\n]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def harmless(text: str) -> str:
    """``text`` for a terminal, of one or more lines; a second time it stays as it is."""
    return _OBEYED.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """``text`` for a terminal where a line is the frame: a cell of a table, a name."""
    return _BREAKS.sub(" ", harmless(text))


def harmless_json(text: str, *, ascii_only: bool = False) -> str:
    """The same JSON with what a terminal obeys (or all that is not ASCII) escaped: exact."""
    return (_NOT_ASCII if ascii_only else _OBEYED).sub(_json_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _json_escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
