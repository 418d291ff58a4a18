"""Tokens and money, exact: integer tokens, integer nano-dollars.

A dollar is 1,000,000,000 nano-dollars. Prices are nano-dollars per million tokens; each part is
rounded half up, once, when it is booked. Floats given by people pass through Decimal at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

NANOS_PER_DOLLAR = 1_000_000_000
PER_MILLION = 1_000_000


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Disjoint token parts. ``input_tokens`` excludes what was read from or written to a cache;
    ``output_tokens`` includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def counted(self, cache_read_weight_percent: int = 0) -> int:
        """The tokens that limits, totals and screens count: cache reads by their weight."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_write_tokens
            + self.cache_read_tokens * cache_read_weight_percent // 100
        )


class Price(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a model costs, nano-dollars per million tokens of each part.

    ``flat`` prices are per counted token (the seed's two); otherwise per part.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    flat: bool = False

    @classmethod
    def flat_per_1k(cls, dollars: str | Decimal) -> Price:
        nanos = nanos_of(Decimal(str(dollars)) * 1000)
        return cls(nanos, nanos, nanos, nanos, flat=True)

    @property
    def dearest(self) -> int:
        """The dearest part: what a hold is priced at while nothing better is known."""
        return max(self.input, self.output, self.cache_write, self.cache_read)


def _rounded(tokens: int, price: int) -> int:
    return (tokens * price + PER_MILLION // 2) // PER_MILLION


def cost_nanos(usage: Usage, price: Price, cache_read_weight_percent: int = 0) -> int:
    """What ``usage`` costs in nano-dollars; each part rounded half up."""
    if price.flat:
        return _rounded(usage.counted(cache_read_weight_percent), price.input)
    return (
        _rounded(usage.input_tokens, price.input)
        + _rounded(usage.output_tokens, price.output)
        + _rounded(usage.cache_read_tokens, price.cache_read)
        + _rounded(usage.cache_write_tokens, price.cache_write)
    )


def hold_nanos(tokens: int, price: Price) -> int:
    """The money held for ``tokens`` of unknown parts: all at the dearest price."""
    return _rounded(tokens, price.dearest)


def nanos_of(dollars: Decimal | str | int | float) -> int:
    """Dollars as nano-dollars, rounded half up. Raises ValueError where it is no finite number."""
    try:
        value = Decimal(str(dollars)) * NANOS_PER_DOLLAR
        return int(value.to_integral_value(rounding="ROUND_HALF_UP"))
    except ArithmeticError as error:
        raise ValueError(f"{dollars!r} is not an amount of dollars") from error


def dollars(nanos: int, places: int = 4) -> str:
    """Nano-dollars as ``$1.2345``, rounded half up to ``places``."""
    unit = 10 ** (9 - places)
    sign = "-" if nanos < 0 else ""
    whole = (abs(nanos) + unit // 2) // unit
    scale = 10**places
    return f"{sign}${whole // scale:,}.{whole % scale:0{places}d}"


_PARTS = {
    "input_tokens": 0,
    "prompt_tokens": 0,
    "prompt": 0,
    "output_tokens": 1,
    "completion_tokens": 1,
    "completion": 1,
    "cache_read_tokens": 2,
    "cache_read_input_tokens": 2,
    "cache_write_tokens": 3,
    "cache_creation_tokens": 3,
    "cache_creation_input_tokens": 3,
}
_TOTALS = ("total_tokens", "total")
TOKENS_MAX = 10**15


def part_index(name: str) -> int | None:
    """Which field of Usage a vendor's name of a token part means, None for an unknown name."""
    return _PARTS.get(name)


def usage_of(told: Mapping[str, object]) -> Usage | None:
    """The token parts in what an agent told; None when it says nothing of tokens.

    Names of the usual vendors are understood, all taken as disjoint parts. A total above the sum
    adds the rest to input. Raises ValueError for a count that is not a whole number ≥ 0.
    """
    parts = [0, 0, 0, 0]
    known = False
    for name, part in _PARTS.items():
        if told.get(name) is not None:  # two names of one part say the same thing twice
            parts[part] = max(parts[part], _count(name, told[name]))
            known = True
    for name in _TOTALS:
        if name in told and told[name] is not None:
            parts[0] += max(0, _count(name, told[name]) - sum(parts))
            known = True
    return Usage(*parts) if known else None


def _count(name: str, value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value[:20])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise ValueError(f"{name} must be a whole number of tokens, not {str(value)[:40]!r}")
    return value
