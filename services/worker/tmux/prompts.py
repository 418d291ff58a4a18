"""A prompt on its way into an input box, and what of it arrived. PURE.

An input box is no pipe: ``/clear`` at its beginning is a command, ``!rm`` goes to a shell, and
``@file`` reads a file. So what would be one is written so that it is none (a first line before it,
``\\@``), and whatever changed on the way, by us or by the agent, is named in the receipt. Claude
Code (2.1.330 and later) wraps a paste of four lines or 800 characters, makes four blanks of a tab
and drops the last line feed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

INTRODUCTION = "The task:\n"
TAB = "    "
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MENTION = re.compile(r"(?<!\S)@")
_COMMAND = re.compile(r"\s*[/!#&?]")
_WRAPPED = re.compile(
    r"\s*<pasted_content id=\"[^\"]*\">\n(.*)\n</pasted_content id=\"[^\"]*\">\s*", re.DOTALL
)
# Invisible characters that an agent takes out of what is pasted.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")

_BLANKS_AT_ENDS = re.compile(r"[ \t]+(?=\n|$)")
# What an agent does to a prompt and still has it whole, in this order.
_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("the last line feed dropped", str.strip),
    ("tabs became blanks", lambda text: text.replace("\t", TAB)),
    ("invisible characters left out", lambda text: _INVISIBLE.sub("", text)),
    ("blanks at ends of lines dropped", lambda text: _BLANKS_AT_ENDS.sub("", text)),
)


def for_input(text: str) -> tuple[str, tuple[str, ...]]:
    """What is typed for ``text``, and what was changed in it, as words."""
    changes: list[str] = []
    plain = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if plain != text:
        changes.append("control characters left out")
    typed = _MENTION.sub(r"\\@", plain)
    if typed != plain:
        changes.append("@ written as \\@")
    if _COMMAND.match(typed):
        typed = INTRODUCTION + typed
        changes.append("a first line put before it")
    return typed, tuple(changes)


def unwrapped(arrived: str) -> str:
    """``arrived`` without the marks that an agent puts around a long paste."""
    wrapped = _WRAPPED.fullmatch(arrived)
    return wrapped[1] if wrapped else arrived


def compared(typed: str, arrived: str) -> tuple[str, ...] | None:
    """What differs between what was typed and what the agent says it has, as words; None where
    that is another prompt."""
    inner = unwrapped(arrived)
    changes = ["wrapped as a paste"] if inner != arrived else []
    if typed == inner:
        return tuple(changes)
    mine, other = typed, inner
    for words, step in _STEPS:
        before = mine
        mine, other = step(mine), step(other)
        if mine != before:
            changes.append(words)
        if mine == other:
            return tuple(changes)
    if mine and mine in other:
        return (*changes, "more stood in the input box")
    return None
