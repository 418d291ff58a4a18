"""The progress view: an agent's document with what asb knows beside it, marked as ours. PURE.

The key is a view and an intake at once, so a value must tell whose it is. Ours ends with a
digest of itself and of its key: what an agent changes in it, or copies to another key, is the
agent's again."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

import msgspec

_END = re.compile(rb',"mark":"([0-9a-f]{24})"\}\}\Z')
_MARKED = len(b',"mark":""}}') + 24
_PLACE = ("as_of", "mark")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Ours(msgspec.Struct, frozen=True):
    """What our part of a view says of its place: the log id it stands for, and its document's."""

    as_of: str = "0-0"
    document: str = ""


class _View(msgspec.Struct):
    asb: Ours


_view = msgspec.json.Decoder(_View)


def render(key: str, document: bytes, facts: dict[str, Any]) -> bytes:
    """The view: every field of the document as it was written, and ``asb`` with ``facts``.

    A bare word stands as ``status``, another value that is no object as ``value``.
    """
    fields: dict[str, Any]
    try:
        fields = dict(_fields.decode(document))
    except msgspec.MsgspecError:
        value = msgspec.json.decode(document)
        fields = {"status" if isinstance(value, str) else "value": msgspec.Raw(document)}
    fields.pop("asb", None)  # of an agent that changed a view: ours goes to the end
    fields["asb"] = facts
    body = msgspec.json.encode(fields)
    return body[:-2] + b',"mark":"' + _digest(key, body) + b'"}}'


def ours(key: str, value: bytes) -> Ours | None:
    """What stands in the view, if ``value`` is one of ours and untouched; else None."""
    match = _END.search(value, max(0, len(value) - _MARKED))
    if match is None or _digest(key, value[: match.start()] + b"}}") != match[1]:
        return None
    try:
        return _view.decode(value).asb
    except msgspec.MsgspecError:
        return None


def says(view: bytes, facts: dict[str, Any]) -> bool:
    """Whether a view of ours says these facts, wherever it stands."""
    reported: dict[str, Any] = msgspec.json.decode(view)["asb"]
    return {k: v for k, v in reported.items() if k not in _PLACE} == {
        k: v for k, v in facts.items() if k not in _PLACE
    }


def _digest(key: str, body: bytes) -> bytes:
    return blake2b(key.encode() + b"\0" + body, digest_size=12).hexdigest().encode()
