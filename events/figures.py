"""Numbers as programs write them: read only where they can be read in one way. PURE."""

from __future__ import annotations

import re

TOKENS_MAX = 10**15
_WHOLE = re.compile(r"([0-9]{1,3}(?:[^0-9.][0-9]{3})+|[0-9]{1,18})(?:\.0{1,2})?\Z")
_GROUPED = re.compile(r"[0-9]{1,3}([,_' \u00a0\u2009\u202f])[0-9]{3}(?:\1[0-9]{3})*\Z")


def count(value: object) -> int | None:
    """A number of tokens, None where it is none or can be read in two ways.

    In a text a comma (blank, underscore, apostrophe) before exactly three digits is a thousands
    mark, and a point never is: ``"1,500"`` is 1500, ``"1.500"`` nothing. A float without a fraction
    is the integer.
    """
    if isinstance(value, str):
        match = _WHOLE.match(value.strip())
        if match is None or not (match[1].isdecimal() or _GROUPED.match(match[1])):
            return None
        value = int(re.sub(r"[^0-9]", "", match[1]))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= TOKENS_MAX else None
