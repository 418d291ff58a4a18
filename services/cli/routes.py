"""routes: who does which kind of work, and how that fares."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from events.money import dollars
from events.task import KINDS
from projections.format import span
from projections.prices import price_of
from projections.records import Routed
from projections.state import State
from services import assembly
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.runtime.settings import Settings
from services.screens.text import table

WORTH_PERCENT = 5  # of a cheap model's tasks lost: from here on escalating is suggested


def routes(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Where each kind of task goes, and how attempts fared by kind and model."""
    with options.opened() as bus:
        state, settings = bus.state(), bus.settings
    view = routes_view(state, settings)
    if as_json:
        say_json(view)
        return
    say(_table(view))
    enough = view["enough"]
    note(f"* from {enough} attempts on: before, the figures say little")
    if view["suggestion"]:
        say(view["suggestion"])


def routes_view(state: State, settings: Settings) -> dict[str, Any]:
    """``asb routes --json``: per kind its route, per kind and model the attempts and their means,
    in tokens, nano-dollars and µs; null where there were none."""
    delegator = assembly.delegator_of(settings)
    enough = state.policy.learning.min_samples
    rows: list[dict[str, Any]] = []
    for key, routed in sorted(state.routed.items()):
        kind, _, model = key.partition("|")
        rows.append({"kind": kind, "model": model, **_figures(routed, enough)})
    return {
        "routes": {kind: list(delegator.route(kind)) for kind in KINDS},
        "fared": rows,
        "enough": enough,
        "escalate": settings.delegator.escalate,
        "suggestion": _suggestion(state, settings),
    }


def _figures(routed: Routed, enough: int) -> dict[str, Any]:
    n = routed.attempts
    return {
        "attempts": n,
        "completed": routed.completed,
        "success_percent": 100 * routed.completed // n if n else None,
        "tokens": routed.tokens // n if n else None,
        "cost_nanos": routed.nanos // n if n else None,
        "micros": routed.micros // n if n else None,
        "lost": routed.lost,
        "escalated": routed.escalated,
        "rescued": routed.rescued,
        "enough_data": n >= enough,
    }


def _table(view: dict[str, Any]) -> str:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in view["fared"]:
        by_kind.setdefault(row["kind"], []).append(row)
    cells: list[tuple[str, ...]] = []
    for kind, (agent, model) in view["routes"].items():
        rows = by_kind.get(kind, [])
        if all(row["model"] != model for row in rows):
            cells.append((kind, f"{agent}/{model}", "-", "0", "-", "-", "-"))
        for row in rows:
            route = f"{agent}/{model}" if row["model"] == model else f"…/{row['model']}"
            mark = "*" if row["enough_data"] else ""
            cells.append(
                (
                    kind,
                    route,
                    f"{row['success_percent']} %{mark}",
                    f"{row['attempts']:,}",
                    f"{row['tokens']:,}",
                    dollars(row["cost_nanos"]),
                    span(row["micros"]),
                )
            )
    heads = ("KIND", "ROUTE", "DONE", "ATTEMPTS", "TOKENS", "COST", "TIME")
    return table(heads, cells, right="DONE ATTEMPTS TOKENS COST TIME", width=width())


def _suggestion(state: State, settings: Settings) -> str:
    """Whether escalating would pay, with the figures; "" where it is on, or where too little is
    known."""
    capable = settings.delegator.capable_model
    dear = price_of(state, capable)
    if settings.delegator.escalate or dear is None:
        return ""
    attempts = lost = done = of = 0
    for key, routed in state.routed.items():
        model = key.partition("|")[2]
        price = price_of(state, model)
        if model == capable:
            done, of = done + routed.completed, of + routed.attempts
        elif price is not None and price.dearest < dear.dearest:
            attempts, lost = attempts + routed.attempts, lost + routed.lost
    if attempts < state.policy.learning.min_samples or 100 * lost < WORTH_PERCENT * attempts:
        return ""
    fares = f", where {100 * done // of} % of {of:,} attempts succeed" if of else ""
    return (
        f"{lost:,} tasks failed for good on models cheaper than {capable} ({attempts:,} attempts);"
        f" `[delegator] escalate = true` would try each once more on {capable}{fares}."
    )
