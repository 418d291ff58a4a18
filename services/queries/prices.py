"""What a model costs, by part, and who says so. PURE."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from events.money import BOOK
from projections.prices import quote
from projections.state import State
from services.runtime import initial_policy
from services.runtime.settings_types import PolicySettings


def price_view(state: State, model: str) -> dict[str, Any]:
    """``asb prices MODEL --json``: nano-dollars per million tokens of each part, and the source."""
    quoted = quote(state, model)
    source = quoted.source if quoted is not None else "unknown"
    seeded = initial_policy.policy_prices(PolicySettings()).get(model)
    if quoted is not None and source == BOOK and quoted.price != seeded:
        source = "override"
    parts = {part: getattr(quoted.price, part) if quoted is not None else None for part in PARTS}
    return {
        "model": model,
        "source": source,
        "version": state.policy.book if source in (BOOK, "override") else None,
        "flat": quoted.price.flat if quoted is not None else False,
        "nanos_per_million": parts,
        "dollars_per_million": {p: None if n is None else _decimal(n) for p, n in parts.items()},
    }


def _decimal(nanos: int) -> str:
    text = f"{Decimal(nanos) / 10**9:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


PARTS = ("input", "cache_read", "cache_write", "output")
