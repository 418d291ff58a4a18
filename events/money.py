"""Tokens and money, exact: integer tokens, integer nano-dollars.

A dollar is 1,000,000,000 nano-dollars. Prices are nano-dollars per million tokens; each part is
rounded half up, once, when it is charged. Floats given by people pass through Decimal at the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, TypeAlias

import msgspec

from events.tokens import TokenParts

NANOS_PER_DOLLAR = 1_000_000_000
PER_MILLION = 1_000_000


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
        """``dollars`` per 1,000 counted tokens. Raises ValueError as `exact` does."""
        nanos = exact(Decimal(dollars), 12)
        return cls(nanos, nanos, nanos, nanos, flat=True)

    @classmethod
    def typed(
        cls,
        flat: Decimal | None = None,
        input: Decimal | None = None,
        output: Decimal | None = None,
        cache_read: Decimal | None = None,
        cache_write: Decimal | None = None,
    ) -> Price:
        """A price as people give it: ``flat`` dollars per 1,000 counted tokens, or dollars per
        million by part. A cache part that is not given costs what fresh input does, for unknown is
        not zero. Raises ValueError for anything between the two, and as `exact` does."""
        if flat is not None and (input, output, cache_read, cache_write) == (None,) * 4:
            return cls.flat_per_1k(flat)
        if flat is not None or input is None or output is None:
            raise ValueError(
                "a price is either flat or by part: input and output, "
                "and cache_read and cache_write where they differ from input"
            )
        return cls(
            exact(input),
            exact(output),
            exact(input if cache_read is None else cache_read),
            exact(input if cache_write is None else cache_write),
        )

    @property
    def dearest(self) -> int:
        """The dearest part: what a hold is priced at while nothing better is known."""
        return max(self.input, self.output, self.cache_write, self.cache_read)


class Quote(NamedTuple):
    """A price, and who says so: ``book``, ``local``, or a price list with its version."""

    price: Price
    source: str


BOOK, LOCAL = "book", "local"
Lookup: TypeAlias = Callable[[str], Quote | None]


def no_quotes(_model: str) -> Quote | None:
    """The price list of whoever has none."""
    return None


def _rounded(tokens: int, price: int) -> int:
    return (tokens * price + PER_MILLION // 2) // PER_MILLION


def cost_nanos(usage: TokenParts, price: Price, cache_read_weight_percent: int = 0) -> int:
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
    """Dollars as nano-dollars, rounded half up. Raises ValueError where it is no finite number, or
    one of more than 18 digits before the point: ``1e99999999`` would take all memory to write."""
    try:
        value = Decimal(str(dollars))
        if not value.is_finite() or value.adjusted() >= 18:
            raise ArithmeticError
        value *= NANOS_PER_DOLLAR
        return int(value.to_integral_value(rounding="ROUND_HALF_UP"))
    except ArithmeticError as error:
        raise ValueError(f"{dollars!r} is not an amount of dollars") from error


def exact(amount: Decimal, places: int = 9) -> int:
    """An amount that a person set, in units of ``places`` decimals: dollars as nano-dollars. Raises
    ValueError where it is negative, finer than the unit, or of more than 18 digits before the
    point: what holds is never another amount than the one that was set."""
    if not amount:
        return 0
    _, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int) or amount < 0 or amount.adjusted() >= 18:
        raise ValueError(f"amount {amount}: expected 0 or more, and less than 10^18")
    finer = -exponent - places  # digits behind the unit
    if finer > 0 and any(digits[-finer:]):
        unit = f"at most {places} decimal places" if places else "a whole number"
        raise ValueError(f"amount {amount}: expected {unit}")
    whole = int("".join(map(str, digits)))
    return whole * 10**-finer if finer <= 0 else whole // 10**finer


def dollars(nanos: int, places: int = 4) -> str:
    """Nano-dollars as ``$1.2345``, rounded half up to ``places``."""
    unit = 10 ** (9 - places)
    sign = "-" if nanos < 0 else ""
    whole = (abs(nanos) + unit // 2) // unit
    scale = 10**places
    return f"{sign}${whole // scale:,}.{whole % scale:0{places}d}"
