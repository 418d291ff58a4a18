"""Numbers as people type them: counts, money, percent. PURE.

One reader for the command line, the configuration and corrections. What could be read in two ways
is refused, with both readings where that helps: in ``1.000`` the point may be a thousands mark, in
``1,5`` the comma a decimal one. ``500K``, ``5M``, ``$4.50``, ``1,234.50`` and ``80 %`` are clear.
"""

from __future__ import annotations

import re
from decimal import Decimal

SCALES = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}
DIGITS_MAX = 18  # before the point
_WHOLE = r"(?P<whole>[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:_[0-9]{3})+)"
_REST = r"(?:\.(?P<part>[0-9]+))?\s*(?P<scale>[KMB]?)\Z"
_AMOUNT = re.compile(rf"(?P<dollar>\$\s*)?{_WHOLE}{_REST}", re.IGNORECASE)
_PERCENT = re.compile(r"(?P<whole>[0-9]{1,4})\s*%?\Z")


def count(text: str) -> int:
    """``500K``, ``5M``, ``1,500``: a whole number. Raises ValueError, saying what is unclear."""
    amount, dollar = _amount(text)
    if dollar:
        raise ValueError(f"{text!r} is money; a count is a whole number such as 500K")
    if amount != amount.to_integral_value():
        raise ValueError(f"{text!r} is no whole number")
    return int(amount)


def dollars(text: str) -> Decimal:
    """``$5``, ``4.50``, ``1.5K``: dollars, exact. Raises ValueError, saying what is unclear."""
    return _amount(text)[0]


def percent(text: str) -> int:
    """``80``, ``80%``, ``80 %``: whole percent. Raises ValueError for anything else."""
    match = _PERCENT.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no whole number of percent, such as 80 or 80 %")
    return int(match["whole"])


def _amount(text: str) -> tuple[Decimal, bool]:
    """The number, and whether it was marked as money."""
    stripped = text.strip()
    match = _AMOUNT.match(stripped)
    if match is None:
        raise ValueError(_unclear(stripped))
    whole, part = re.sub("[,_]", "", match["whole"]), match["part"]
    grouped = whole != match["whole"]
    # Three digits behind a lone point are thousands to half the world, unless nothing is before it.
    if part is not None and len(part) == 3 and not grouped and 0 < int(whole) < 1_000:
        raise ValueError(
            f"{text!r} can be read in two ways: write {whole}{part}, or {whole}.{part}0"
        )
    if len(whole.lstrip("0")) > DIGITS_MAX:
        raise ValueError(f"{text[:40]!r} has more than {DIGITS_MAX} digits")
    number = Decimal(whole if part is None else f"{whole}.{part}") * SCALES[match["scale"].upper()]
    return number, match["dollar"] is not None


def _unclear(text: str) -> str:
    if re.fullmatch(r"\$?\s*[0-9.,]*,[0-9.,]*\s*[KMBkmb]?", text):
        return (
            f"{text!r} can be read in two ways: a comma stands before exactly three digits, "
            "a decimal point is a point"
        )
    return f"{text[:40]!r} is no number such as 500K, 5M or $4.50"
