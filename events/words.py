"""Words and figures: what of an event is private, and how it stands on the log.

Each field that can hold text says in its class what it holds: a ``Label`` (a checked name: an id,
an agent, a project) or a ``Phrase`` (asb's own words, made of figures and labels) is public, a
``Text`` (what somebody wrote, or a sentence that quotes it) is private. Numbers are public.

In ``data`` every private field stands under ``words``, together with what a writer told beside
the fields asb knows. ``marks`` carry the length of each and a digest keyed by a secret of the bus.
Folds, snapshots and the audit read marks and never words, so words can be taken out of the log
later and whatever is folded from it stays the same.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import msgspec

PUBLIC, PRIVATE = "public", "private"
Label: TypeAlias = Annotated[str, PUBLIC]
Phrase: TypeAlias = Annotated[str, PUBLIC]
Text: TypeAlias = Annotated[str, PRIVATE]
OTHERS = "others"  # the mark of what a writer told beside the fields asb knows, all together
FORGOTTEN = "forgotten"  # what is shown of words that were taken out


class TextMark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of a text its characters, of another value the bytes of its JSON; and a keyed digest."""

    length: int = 0
    digest: Label = ""


NO_MARK = TextMark()
_encoder = msgspec.json.Encoder()


def keyed_digest(content: bytes, secret: bytes) -> str:
    """Names ``content``; without the secret it cannot be guessed at."""
    digest = _keyed(secret).copy()
    digest.update(content)
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _keyed(secret: bytes) -> blake2b:
    """A digest that has taken in the key, which costs as much as a short text."""
    return blake2b(digest_size=12, key=secret)


def mark_of(value: Any, secret: bytes) -> TextMark:
    """The mark of a text, or of any other value by its JSON."""
    if type(value) is str:
        return TextMark(len(value), keyed_digest(value.encode(errors="surrogatepass"), secret))
    if isinstance(value, msgspec.Raw) and bytes(value).startswith(b'"'):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # no JSON: its bytes
            value = msgspec.json.decode(value)
    if isinstance(value, str):
        return TextMark(len(value), keyed_digest(value.encode(errors="surrogatepass"), secret))
    content = bytes(value) if isinstance(value, msgspec.Raw) else _encoder.encode(value)
    return TextMark(len(content), keyed_digest(content, secret))


def marks_of(
    words: Mapping[str, Any], others: Mapping[str, Any], secret: bytes
) -> dict[str, TextMark]:
    """A mark for each of ``words``, and one for ``others``: their very names are words."""
    marks = {name: mark_of(value, secret) for name, value in words.items()}
    if others:
        marks[OTHERS] = mark_of(msgspec.Raw(_encoder.encode(others)), secret)
    return marks


# -- declarations ----------------------------------------------------------------------------------


def private_fields(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of ``cls`` that are declared private, as their annotations are written: to
    evaluate these for every class would double the time a process takes to start."""
    written: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        written.update(vars(base).get("__annotations__", {}))
    return tuple(n for n in cls.__struct_fields__ if _PRIVATE.search(str(written.get(n, ""))))


_PRIVATE = re.compile(r"\b(Text|PRIVATE)\b")


def public_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of ``cls`` that are not private."""
    return frozenset(cls.__struct_fields__) - set(private_fields(cls))


def nothings(cls: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """The private fields of ``cls``, each with what it holds where nothing was written."""
    fields, defaults = cls.__struct_fields__, cls.__struct_defaults__
    values = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
    made = ((name, values[name]) for name in private_fields(cls))
    return tuple((name, x.factory() if hasattr(x, "factory") else x) for name, x in made)


def undeclared_fields(cls: type[msgspec.Struct]) -> list[str]:
    """Fields that can hold text and do not say whether that is private; private ones of a struct
    within, which could not be told apart on the wire, too. Every command and event has none."""
    fields = msgspec.structs.fields(cls)
    written = {field.name for field in fields if _is_declared(field.type, PRIVATE)}
    assert written == set(private_fields(cls)), f"{cls.__name__}: {written}"
    return [
        f"{cls.__name__}.{field.name}"
        for field in fields
        if field.name not in written and not _is_public(field.type)
    ]


def _is_declared(kind: Any, how: str) -> bool:
    return get_origin(kind) is Annotated and how in kind.__metadata__


def _is_public(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return PRIVATE not in kind.__metadata__ and PUBLIC in kind.__metadata__
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return not private_fields(kind) and not undeclared_fields(kind)
    if kind in (int, bool, type(None), Ellipsis, msgspec.UnsetType):
        return True
    return bool(get_args(kind)) and all(_is_public(part) for part in get_args(kind))
