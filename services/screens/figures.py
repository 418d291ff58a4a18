"""Figures for narrow places: short numbers, ages, bars, sparks. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from events.money import dollars
from projections.windows import MINUTE

SPARKS = " ▁▂▃▄▅▆▇█"
CENT = 10_000_000
SECOND = 1_000_000


def short(amount: int) -> str:
    """``999``, ``12.3K``, ``4.5M``: three digits at least, rounded down."""
    if amount < 0:
        return "-" + short(-amount)
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if amount >= size:
            tenths = amount * 10 // size
            return (
                f"{tenths // 10}{unit}" if tenths >= 1000 else f"{tenths // 10}.{tenths % 10}{unit}"
            )
    return str(amount)


def money(nanos: int) -> str:
    """``$1.23``; four decimals below a dollar."""
    return dollars(nanos, 2 if nanos >= 100 * CENT or not nanos else 4)


def amount(unit: str, value: int) -> str:
    return money(value) if unit == "money" else short(value)


def age(micros: int) -> str:
    """A length of time in at most six characters: ``42s``, ``7m``, ``3h05``, ``2d4h``."""
    seconds = max(0, micros) // SECOND
    if seconds < 100:
        return f"{seconds}s"
    minutes = micros // MINUTE
    if minutes < 100:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h{minutes % 60:02d}" if hours < 48 else f"{hours // 24}d{hours % 24}h"


def bar_cells(used: int, held: int, limit: int, width: int) -> tuple[int, int, int]:
    """How many of ``width`` cells are used, held and free. What is there at all shows."""
    if limit <= 0:
        return (width, 0, 0)
    filled = min(width, _cells(used, limit, width))
    reserved = min(width - filled, _cells(used + held, limit, width) - filled)
    if held and not reserved and filled < width:
        reserved = 1
    return filled, max(0, reserved), width - filled - max(0, reserved)


def _cells(part: int, whole: int, width: int) -> int:
    cells = (2 * part * width + whole) // (2 * whole)
    return max(1, cells) if part > 0 else 0


def spark(values: Sequence[int], width: int) -> str:
    """The last values as a line of blocks, ``width`` cells; several values share a cell."""
    if not values or width <= 0:
        return ""
    per = -(-len(values) // width)
    sums = [sum(values[i : i + per]) for i in range(0, len(values), per)]
    top = max(sums) or 1
    return "".join(SPARKS[-(-8 * value // top)] for value in sums)
