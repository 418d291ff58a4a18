"""The policy in force: the last ``policy.changed``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from events.envelope import Event
from events.money import Price
from projections import alerts

if TYPE_CHECKING:
    from projections.state import State


def changed(state: State, event: Event) -> None:
    """Another policy; what could never fit under the old one is tried again."""
    alerts.before_policy(state)
    state.set_policy(event.data)
    state.meta.policy_after = state.meta.submitted
    alerts.after_policy(state)


class Quote(NamedTuple):
    """A price, and who says so: ``book``, ``local``, or a price list with its version."""

    price: Price
    source: str


Lookup = Callable[[str], Quote | None]
BOOK, LOCAL = "book", "local"
LOCAL_PREFIXES = ("local/", "ollama/")


def no_quotes(_model: str) -> Quote | None:
    """The price list of whoever has none."""
    return None


def quote(state: State, model: str) -> Quote | None:
    """The price of ``model``: the book's, else 0 for a local one, else what the price list beside
    the book says. None when nobody knows it: unknown is not zero.

    Folds never ask this: what a decision was priced at stands on its event.
    """
    found = state.policy.prices.get(model)
    if found is not None:
        return Quote(found, BOOK)
    if model.startswith(LOCAL_PREFIXES):
        return Quote(Price(), LOCAL)
    return state.price_lookup(model) if model else None


def price_of(state: State, model: str) -> Price | None:
    """The price of ``model``, None when nobody knows it."""
    found = quote(state, model)
    return found.price if found is not None else None


def hold_price(state: State, model: str) -> Price:
    """What a hold is priced at: where nobody knows the price, at the dearest of the book."""
    found = price_of(state, model)
    if found is not None:
        return found
    return max(state.policy.prices.values(), key=lambda price: price.dearest, default=Price())
