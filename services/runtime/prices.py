"""Prices of models that the book does not name: the list that comes with ``genai-prices``.

Only the data bundled with the installed package is used; nothing is fetched. What a decision was
priced at stands on its event, so another version of the list never changes the past.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from events.money import Price, Quote, nanos_of

MAKERS = ("anthropic", "openai", "google", "mistral", "x-ai", "deepseek", "cohere")
KNOWN_MAX = 4_096  # models and days remembered


def lookup(model: str) -> Quote | None:
    """The price of ``model`` today, None where the list does not know it.

    ``provider/model`` names the provider; a bare name is looked for among the makers of models.
    """
    return _lookup(model, datetime.now(UTC).date())


@lru_cache(maxsize=KNOWN_MAX)
def _lookup(model: str, day: date) -> Quote | None:
    # Half a second of loading, so only for whoever has such a model.
    from genai_prices.data_snapshot import get_snapshot

    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    provider, slash, name = model.partition("/")
    snapshot: Any = get_snapshot()
    places = [(name, provider)] if slash else [(model, None), *((model, of) for of in MAKERS)]
    for wanted, of in places:
        try:
            _, listed = snapshot.find_provider_model(wanted, None, of, None)
            price = _price(listed.get_prices(at))
        except (LookupError, ValueError, TypeError):
            continue
        if price is not None:
            return Quote(price, source())
    return None


@lru_cache(maxsize=1)
def source() -> str:
    """The list and its version, as it stands on events."""
    from importlib.metadata import version  # it reads mail headers, and loads what that needs

    return f"genai-prices {version('genai-prices')}"


def _price(listed: Any) -> Price | None:
    """Dollars per million tokens as nano-dollars. A part without a price of its own costs what
    fresh input costs; the first tier counts, because usage says nothing of single requests."""
    fresh, output = _part(listed, "input_mtok"), _part(listed, "output_mtok")
    if fresh is None:
        return None
    read, write = _part(listed, "cache_read_mtok"), _part(listed, "cache_write_mtok")
    return Price(
        fresh,
        fresh if output is None else output,
        fresh if read is None else read,
        fresh if write is None else write,
    )


def _part(listed: Any, name: str) -> int | None:
    value = getattr(listed, name, None)
    value = getattr(value, "base", value)
    return nanos_of(value) if isinstance(value, Decimal) else None
