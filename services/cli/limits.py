"""limits, policy: what may be used, and how a running bus is told otherwise.

A change is sent through the shared intake as a difference, so two people who change the policy at
once lose nothing. It stands on the log as ``policy.changed``; replay knows the limits of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from events import amounts
from events.money import exact
from events.policy import check_limit
from events.task import PRIORITIES
from projections import budgets
from projections.state import State
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.cli.typed import typed
from services.client.bus import Bus
from services.client.follow import Answers
from services.queries.limits import limits_view
from services.screens.limits import limits_text

app = typer.Typer(
    help="What may be used per hour, day, week, month: show it, change it.",
    invoke_without_command=True,
)

SAVING = ("off", "always", *budgets.LEVELS[1:])
GUARD = ("warn", "pause", "cancel")

Scope = Annotated[
    str,
    typer.Argument(
        metavar="SCOPE",
        help="global, worker, agent, model, project (each of them), or one: worker:w1.",
    ),
]
Unit = Annotated[str, typer.Argument(metavar="UNIT", help="tokens, money or tasks.")]
Window = Annotated[
    str, typer.Argument(metavar="WINDOW", help="hour, day, week, month, or rolling: 5h, 90m.")
]
Amount = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="A whole number, 500K, 5M; dollars for money: 4.50.")
]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]
Show = Callable[[Bus, State], None]


@app.callback()
def limits(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every limit with its use and level; with a command, change one."""
    if context.invoked_subcommand is None:
        _list(as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every limit, with use and level beside it."""
    _list(as_json)


@app.command("set")
def set_(scope: Scope, unit: Unit, window: Window, amount: Amount, reason: Reason = "") -> None:
    """Add a limit, or change it; 0 refuses everything.

    Lowering it below present use stops new work and touches nothing that runs.
    """
    _check_name(scope, unit, window)
    limit: dict[str, object] = {**_named(scope, unit, window), "amount": amount_of(unit, amount)}
    change_policy(f"limit on {unit}/{window} of {scope}", {"set_limits": [limit]}, reason)


@app.command()
def remove(scope: Scope, unit: Unit, window: Window, reason: Reason = "") -> None:
    """Remove a limit; what was used is not forgotten."""
    what = f"limit on {unit}/{window} of {scope}"
    change_policy(what, {"remove_limits": [_named(scope, unit, window)]}, reason)


@app.command()
def alert(
    unit: Unit,
    window: Window,
    amount: Amount,
    at: Annotated[str, typer.Option(help="Percent at which to warn, from 1 to 1000.")] = "80",
    reason: Reason = "",
) -> None:
    """Add or change an alert budget.

    It warns and never refuses; `off` as AMOUNT removes it.
    """
    _check_name("global", unit, window)
    change: dict[str, object]
    if amount == "off":
        change = {"remove_alert_budgets": [{"unit": unit, "window": window}]}
    else:
        budget = {"unit": unit, "window": window, "amount": amount_of(unit, amount)}
        change = {"set_alert_budgets": [{**budget, "threshold_percent": _percent("--at", at)}]}
    change_policy(f"alert budget on {unit}/{window}", change, reason)


@app.command()
def saving(
    start: Annotated[str, typer.Argument(metavar="WHEN", help=f"One of {', '.join(SAVING)}.")],
    model: Annotated[str | None, typer.Option(help="The cheap model to prefer.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of task that allow it: ui,docs.")] = None,
    reason: Reason = "",
) -> None:
    """Prefer the cheap model.

    Always, or from a level of the whole bus on.
    """
    if start not in SAVING:
        raise typer.BadParameter(f"WHEN {start}: one of {', '.join(SAVING)}")
    with options.opened() as bus:
        chosen = bus.state().policy.saving
    chosen = msgspec.structs.replace(
        chosen,
        start=start,
        model=model or chosen.model,
        kinds=tuple(kinds.replace(",", " ").split()) if kinds is not None else chosen.kinds,
    )
    change_policy("saving", {"saving": msgspec.to_builtins(chosen)}, reason)


@app.command()
def guard(
    action: Annotated[str, typer.Argument(metavar="ACTION", help=f"One of {', '.join(GUARD)}.")],
    step: Annotated[
        str | None, typer.Option(help="Percent of the first hold per extension, from 1 to 1000.")
    ] = None,
    reason: Reason = "",
) -> None:
    """What happens to a task that uses too much.

    Warn, pause its worker, or cancel it.
    """
    if action not in GUARD:
        raise typer.BadParameter(f"ACTION {action}: one of {', '.join(GUARD)}")
    with options.opened() as bus:
        known = bus.state().policy.guard.step_percent
    percent = known if step is None else _percent("--step", step)
    change_policy("guard", {"guard": {"step_percent": percent, "action": action}}, reason)


@app.command("min-priority")
def min_priority(
    priority: Annotated[str, typer.Argument(help=f"One of {', '.join(PRIORITIES)}.")],
    reason: Reason = "",
) -> None:
    """Start no task below this priority; `low` lets all in."""
    if priority not in PRIORITIES:
        raise typer.BadParameter(f"{priority}: one of {', '.join(PRIORITIES)}")
    change_policy("min-priority", {"min_priority": priority}, reason)


@app.command()
def overdraft(on: Annotated[str, typer.Argument(metavar="on|off")], reason: Reason = "") -> None:
    """Whether critical tasks may go beyond every limit."""
    if on not in ("on", "off"):
        raise typer.BadParameter(f"{on}: on or off")
    change_policy("overdraft", {"critical_overdraft": on == "on"}, reason)


# -- changing --------------------------------------------------------------------------------


def _named(scope: str, unit: str, window: str) -> dict[str, object]:
    return {"scope": scope, "unit": unit, "window": window}


def _percent(name: str, text: str) -> int:
    percent = typed(name, text, amounts.percent)
    if not 1 <= percent <= 1000:
        raise typer.BadParameter(f"{name} {text}: from 1 to 1000")
    return percent


def _check_name(scope: str, unit: str, window: str) -> None:
    try:
        check_limit(scope, unit, window)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def amount_of(unit: str, text: str) -> int:
    """``500K`` tokens, ``4.50`` dollars (as nano-dollars), ``12`` tasks. Raises BadParameter."""
    if unit != "money":
        return typed("AMOUNT", text, amounts.count)
    return typed("AMOUNT", text, lambda text: exact(amounts.dollars(text)))


def change_policy(
    what: str, change: dict[str, object], reason: str, show: Show | None = None
) -> None:
    """Send a difference, wait until it stands on the log, and show what holds then: the limits,
    or what ``show`` says."""
    with options.opened() as bus:
        answers = Answers(bus)
        answers.expect(bus.send("policy.changed", {**change, "reason": reason}), what)
        refused = answers.refused(note)
        if not refused:
            (show or say_limits)(bus, bus.state())
            if answers.events:
                note(f"changed: {what}")  # last, so that it is seen below a long list
    if refused:
        raise typer.Exit(1)


# -- showing ---------------------------------------------------------------------------------


def _list(as_json: bool) -> None:
    with options.opened() as bus:
        state = bus.state()
        if as_json:
            say_json(limits_view(state, bus.now()))
        else:
            say_limits(bus, state)


def say_limits(bus: Bus, state: State) -> None:
    """What holds now, on standard output."""
    say(limits_text(state, bus.now(), width()))
