"""``asb policy``: the policy in force, and what of it is no limit."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from projections.format import count
from services.cli import clock, options, prices
from services.cli.limits import AsJson, Reason, amount_of, change_policy, say_limits
from services.cli.terminal import say, say_json

app = typer.Typer(
    help="The policy in force: limits, prices, saving, guard.",
    invoke_without_command=True,
)
app.add_typer(clock.app, name="clock")
app.command("price")(prices.price)


@app.callback()
def policy(context: typer.Context, as_json: AsJson = False) -> None:
    """The policy in force: limits, prices, saving, guard; with a command, change it."""
    if context.invoked_subcommand is None:
        show(as_json)


@app.command()
def plausible(
    tokens: Annotated[
        str | None, typer.Option(help="Counted tokens an attempt can be charged by reports.")
    ] = None,
    money: Annotated[str | None, typer.Option(help="Dollars, likewise.")] = None,
    reason: Reason = "",
) -> None:
    """Bound what reports can charge one attempt.

    What is reported beyond it is disputed (asb correct).
    """
    change: dict[str, object] = {}
    if tokens is not None:
        change["plausible_tokens"] = amount_of("tokens", tokens)
    if money is not None:
        change["plausible_nanos"] = amount_of("money", money)
    if not change:
        raise typer.BadParameter("give --tokens, --money or both")
    change_policy("plausibility bound", change, reason)


@app.command()
def show(as_json: AsJson = False) -> None:
    """The whole policy in force, as it stands on the log."""
    with options.opened() as bus:
        state = bus.state()
        if as_json:
            say_json({"as_of": state.meta.log_id, **msgspec.to_builtins(state.policy)})
            return
        say_limits(bus, state)
    p = state.policy
    say()
    say(f"Price book:    version {p.book}, {count(len(p.prices), 'model')} (asb prices)")
    say(f"Cache reads:   count {p.cache_read_weight_percent} % against token limits")
    say(f"Time zone:     {p.timezone} (of reports)")
    learn = p.learning
    say(
        f"Estimates:     learn after {count(learn.min_samples, 'attempt')}, "
        f"percentile {learn.percentile}, "
        f"at most {learn.share_percent} % of a limit"
    )
