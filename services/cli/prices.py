"""prices: what a model costs, per part, and why."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import typer

from events import amounts
from events.money import Price
from projections import usage
from projections.state import State
from services.cli import options
from services.cli.limits import Reason, change_policy
from services.cli.terminal import note, say, say_json, width
from services.cli.typed import typed
from services.client.bus import Bus
from services.queries.prices import PARTS, price_view
from services.runtime.errors import Refused
from services.screens.text import table

WHY = {
    "book": "the price book on the log, as it came or as the first settings had it",
    "override": "the price book on the log, set on this bus or in its configuration",
    "local": "a local model: it costs nothing",
    "unknown": "nobody knows its price: it settles at the hold, or at its agent's own figure",
}
Dollars = Annotated[str | None, typer.Option(help="Dollars per million tokens of this part.")]


def prices(
    model: Annotated[str | None, typer.Argument(help="One model, known or not.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """What models cost per million tokens, and who says so. Change one: asb policy price."""
    with options.opened() as bus:
        state = bus.state()
    names = [model] if model else sorted({*state.policy.prices, *_used(state)})
    if as_json:
        rows = [price_view(state, name) for name in names]
        say_json({"book": state.policy.book, "prices": rows})
        return
    say_prices(state, names)
    note(
        "dollars per million tokens: fresh input, read from a cache, written to a cache, output;\n"
        "a flat price is one for every counted token"
    )
    if model:
        source = price_view(state, model)["source"]
        say(f"{model}: {WHY.get(source, f'the price list {source}')}")


def say_prices(state: State, names: Sequence[str]) -> None:
    """The table of prices, for these models."""
    rows = [price_view(state, name) for name in names]
    heads = ("MODEL", "INPUT", "CACHED", "WRITE", "OUTPUT", "FROM")
    cells = [(row["model"], *(_dollars(row, part) for part in PARTS), _from(row)) for row in rows]
    say(table(heads, cells, right="INPUT CACHED WRITE OUTPUT", width=width()))


def _used(state: State) -> set[str]:
    """Models that something was charged for."""
    return {name for name in usage.by(state.lifetime, "model") if name}


def _dollars(row: dict[str, Any], part: str) -> str:
    amount = row["dollars_per_million"][part]
    if amount is None:
        return "?"
    return f"${Decimal(amount):,.2f}" + (" flat" if row["flat"] and part == "input" else "")


def _from(row: dict[str, Any]) -> str:
    return f"{row['source']}, version {row['version']}" if row["version"] else row["source"]


def price(
    model: Annotated[str, typer.Argument(help="The model's name, as tasks and agents give it.")],
    flat: Annotated[str | None, typer.Option(help="Dollars per thousand counted tokens.")] = None,
    input_: Annotated[str | None, typer.Option("--input", help="Dollars per million.")] = None,
    output: Dollars = None,
    cache_read: Dollars = None,
    cache_write: Dollars = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of the book.")] = False,
    reason: Reason = "",
) -> None:
    """Set what a model costs from now on.

    What is charged already keeps its price.
    """

    def answer(_bus: Bus, state: State) -> None:
        say_prices(state, [model])

    if remove:
        change_policy(f"price of {model}", {"remove_prices": [model]}, reason, answer)
        return
    given = {
        "flat": flat,
        "input": input_,
        "output": output,
        "cache_read": cache_read,
        "cache_write": cache_write,
    }
    dollars = {
        part: typed("--" + part.replace("_", "-"), text, amounts.dollars)
        for part, text in given.items()
        if text is not None
    }
    try:
        price = Price.typed(**dollars)
    except ValueError as error:
        raise Refused(str(error), hint="nothing was changed") from error
    change: dict[str, object] = {"set_prices": {model: msgspec.to_builtins(price)}}
    change_policy(f"price of {model}", change, reason, answer)
