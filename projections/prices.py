"""What a model costs: by the book, else by what is known beside it.

Folds never ask this: what a decision was priced at stands on its event.
"""

from __future__ import annotations

from events.money import BOOK, LOCAL, Price, Quote
from projections.state import State

LOCAL_PREFIXES = ("local/", "ollama/")


def quote(state: State, model: str) -> Quote | None:
    """The price of ``model``: the book's, else 0 for a local one, else what the price list beside
    the book says. None when nobody knows it: unknown is not zero."""
    price = state.policy.prices.get(model)
    if price is not None:
        return Quote(price, BOOK)
    if model.startswith(LOCAL_PREFIXES):
        return Quote(Price(), LOCAL)
    return state.price_lookup(model) if model else None


def price_of(state: State, model: str) -> Price | None:
    """The price of ``model``, None when nobody knows it."""
    quoted = quote(state, model)
    return quoted.price if quoted is not None else None


def hold_price(state: State, model: str) -> Price:
    """What a hold is priced at: where nobody knows the price, at the dearest of the book."""
    # The book without a quote of it: every look at the head of a queue asks this (5 % of the look).
    price = state.policy.prices.get(model) or price_of(state, model)
    if price is not None:
        return price
    return max(state.policy.prices.values(), key=lambda x: x.dearest, default=Price())
