"""Secrets in what people and agents write: found by patterns, and masked. PURE.

The patterns stand in ``secrets.tsv``. A text is first searched for the short keys that a secret of
each kind holds, which costs next to nothing where there is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

WEAK = "weak-"  # kinds of which the value is looked at more closely
URL_PASSWORD = "url-password"
_PLACEHOLDERS = re.compile(
    r"(?i)(?:x{3,}|\*+|\.{3}|…|pass(?:word|wd)?|pw|pwd|secret|token|user|changeme|example.*|your[-_].*"
    r"|.*(?:placeholder|redacted|masked|dummy).*|none|null|true|false|undefined)"
)
_IDENTIFIER = re.compile(r"[A-Za-z_$@%][\w.\-/:]*\Z")
_NESTED_MAX = 100


class Kind(msgspec.Struct, frozen=True):
    """One kind of secret. ``keys`` stand in every text that holds one, ``folded`` in any case."""

    name: str
    keys: tuple[str, ...]
    folded: tuple[str, ...]
    pattern: str

    @property
    def compiled(self) -> re.Pattern[str]:
        return _compiled(self.pattern)


class Hit(NamedTuple):
    """A secret of a kind, where it stands in its text."""

    kind: str
    start: int
    end: int


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@cache
def kinds() -> tuple[Kind, ...]:
    """Every kind, in the order in which they are looked for."""
    lines = Path(__file__).with_name("secrets.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return tuple(_kind(*row) for row in rows)


def _kind(name: str, keys: str, pattern: str) -> Kind:
    words = keys.split(" ")
    folded = tuple(word[1:] for word in words if word.startswith("~"))
    return Kind(name, tuple(word for word in words if not word.startswith("~")), folded, pattern)


@cache
def _keys() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As they stand in UTF-8 that is read as Latin-1."""
    exact = {key.encode().decode("latin-1") for kind in kinds() for key in kind.keys}
    folded = {key.encode().decode("latin-1") for kind in kinds() for key in kind.folded}
    # A key that holds another one is found with it.
    shortest = [k for k in sorted(exact) if not any(o != k and o in k for o in exact)]
    return tuple(shortest), tuple(sorted(folded))


# A secret is long and without blanks, but for passwords, and keys in several lines.
_RUN = "a" * 16
_IN_RUN = re.compile(rb"[A-Za-z0-9_+/=.~$%-]")
_RUNS = bytes(97 if _IN_RUN.match(bytes((n,))) else 32 for n in range(256))


def may_hold(raw: bytes) -> bool:
    """Whether there may be a secret in ``raw``: False is sure, and cheap."""
    text = raw.decode("latin-1")  # each byte a character: looking into bytes costs ten times that
    if "://" in text or "-----BEGIN" in text:
        return True
    lower = text.lower()
    if "passw" in lower or "passphrase" in lower or "pwd" in lower:
        return True
    if _RUN not in raw.translate(_RUNS).decode("latin-1"):  # several times as fast as a pattern
        return False
    exact, folded = _keys()
    for key in exact:  # a generator would cost several times as much
        if key in text:
            return True
    return any(key in lower for key in folded)


def find(text: str) -> list[Hit]:
    """The secrets in ``text``, in order, none within another."""
    if not may_hold(text.encode("utf-8", "surrogatepass")):
        return []
    lower = text.lower()
    hits: list[Hit] = []
    for kind in kinds():
        if any(key in text for key in kind.keys) or any(key in lower for key in kind.folded):
            hits += _hits(kind, text)
    return list(_apart(sorted(hits, key=lambda hit: (hit.start, -hit.end))))


def _hits(kind: Kind, text: str) -> Iterator[Hit]:
    for match in kind.compiled.finditer(text):
        group = "secret" if "secret" in kind.compiled.groupindex else 0
        value = match[group]
        if kind.name == URL_PASSWORD and _is_placeholder(value):
            continue
        if kind.name.startswith(WEAK) and not _is_value(kind.name, match):
            continue
        yield Hit(kind.name.removeprefix(WEAK), *match.span(group))


def _is_placeholder(value: str) -> bool:
    """What stands for a password where there is none: a word in capitals, a variable, stars."""
    if len(value) < 2 or _PLACEHOLDERS.fullmatch(value) or value.isupper():
        return True
    if not value.strip("*.…-_"):
        return True
    return value[0] in "$%{<[*" or value.startswith("***")


def _is_value(kind: str, match: re.Match[str]) -> bool:
    """Whether what was assigned looks like a value, and not like code, a name or a place for it."""
    value, quoted = match["secret"], bool(match["quote"]) and match["quote"] == match["end"]
    if (match["quote"] and not quoted) or _is_placeholder(value):
        return False
    digits, letters = any(c.isdigit() for c in value), any(c.isalpha() for c in value)
    if kind.endswith("password"):
        if quoted:
            return digits and letters
        special = any(not c.isalnum() and c not in "._-/:" for c in value)
        plain = re.search(r"[=:]\Z", match.string[: match.start("secret")]) is not None
        return letters and digits and (special or plain) and not _is_code(value)
    mixed = value != value.lower() and value != value.upper()
    return digits and letters and (mixed or len(value) >= 32) and not _is_code(value)


def _is_code(value: str) -> bool:
    """A path or a name of several parts, as programs write them: ``settings.token_2``."""
    parts = re.split(r"[._\-/:]", value.rstrip(".:-/"))
    words = sum(part.isalpha() or part.isdigit() or part == "" for part in parts)
    return bool(_IDENTIFIER.match(value)) and len(parts) > 1 and words >= len(parts) - 1


def _apart(hits: list[Hit]) -> Iterator[Hit]:
    end = 0
    for hit in hits:
        if hit.start >= end:
            yield hit
            end = hit.end


# -- masking -------------------------------------------------------------------------------------


def mask_of(kind: str) -> str:
    """What stands in the place of a secret of this kind."""
    return f"[masked: {kind}]"


MASK = re.compile(r"\[masked: [a-z-]+\]")


def masked(text: str, counts: Counter[str] | None = None) -> str:
    """``text`` with its secrets masked; ``counts`` is told how many of which kind."""
    hits = find(text)
    if not hits:
        return text
    parts: list[str] = []
    place = 0
    for hit in hits:
        parts += (text[place : hit.start], mask_of(hit.kind))
        place = hit.end
        if counts is not None:
            counts[hit.kind] += 1
    return "".join((*parts, text[place:]))


def masked_value(value: Any, counts: Counter[str] | None = None, depth: int = 0) -> Any:
    """The same for every text within plain JSON; of an object's names, too."""
    if isinstance(value, str):
        return masked(value, counts)
    if depth > _NESTED_MAX:
        return value
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {masked(k, counts): _field(k, v, counts, depth + 1) for k, v in items}
    if isinstance(value, list):
        return [masked_value(item, counts, depth + 1) for item in cast("list[Any]", value)]
    return value


def _field(name: str, value: Any, counts: Counter[str] | None, depth: int) -> Any:
    """A text under a name that says what it is: ``{"password": "…"}``."""
    if not isinstance(value, str):
        return masked_value(value, counts, depth)
    plain = masked(value, counts)
    if plain != value:
        return plain
    head = f'"{name}": "'
    hits = find(f'{head}{value}"')
    inside = [hit for hit in hits if hit.start == len(head) and hit.end == len(head) + len(value)]
    if not inside:
        return value
    if counts is not None:
        counts[inside[0].kind] += 1
    return mask_of(inside[0].kind)


def masked_json(raw: bytes, counts: Counter[str] | None = None) -> bytes:
    """JSON with its secrets masked; what is no JSON is masked as the text it is."""
    if not may_hold(raw):
        return raw
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return masked(raw.decode("utf-8", "surrogateescape"), counts).encode(
            "utf-8", "surrogateescape"
        )
    seen: Counter[str] = Counter()
    clean = masked_value(value, seen)
    if not seen:
        return raw
    if counts is not None:
        counts.update(seen)
    return msgspec.json.encode(clean)


def said(counts: Counter[str]) -> str:
    """How many secrets of which kind, for people."""
    return ", ".join(f"{n} {kind}" if n > 1 else kind for kind, n in sorted(counts.items()))
