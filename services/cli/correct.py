"""correct: what an attempt was charged, put right by an operator; and what is disputed."""

from __future__ import annotations

from typing import Annotated

import typer

from events import amounts
from events.money import dollars
from projections import charges
from projections.format import count
from projections.state import State
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.cli.typed import typed
from services.client.follow import Answers
from services.queries.disputes import disputed_line, disputes
from services.runtime.errors import Refused
from services.screens.text import table


def correct(
    task: Annotated[
        str | None,
        typer.Argument(help="A task, or the log id of a foreign report. None: what is disputed."),
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt, where there were several.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="What it really used: 12,500 or 500K counted tokens.")
    ] = None,
    money: Annotated[
        str | None, typer.Option(help="With --tokens: dollars, where they do not follow from them.")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Charge what is disputed.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Forget what is disputed.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="What is disputed, as JSON.")] = False,
) -> None:
    """Put right what an ended attempt was charged, up or down; without TASK list what is disputed.

    A report beyond the plausibility bound (asb policy plausible) charges the bound; the rest is
    disputed until one of --tokens, --accept and --drop settles it.
    """
    if task is None:
        _list(as_json)
        return
    if (tokens is not None) + accept + drop != 1:
        raise typer.BadParameter("give exactly one of --tokens, --accept and --drop")
    if not reason.strip():
        raise typer.BadParameter("--reason says why, for the record")
    if money is not None and tokens is None:
        raise typer.BadParameter("--money goes with --tokens")
    order: dict[str, object] = {"task": task, "reason": reason}
    if tokens is not None:
        order["tokens"] = typed("--tokens", tokens, amounts.count)
        if money is not None:
            order["cost_usd"] = str(typed("--money", money, amounts.dollars))
    else:
        order["accept" if accept else "drop"] = True
    _send(task, attempt, order)


def _send(task: str, attempt: int | None, order: dict[str, object]) -> None:
    with options.opened() as opened:
        number = attempt or _only_attempt(opened.state(), task)
        name = f"attempt {number} of {task}" if number else f"report {task}"
        if number:
            order["attempt"] = number
        answers = Answers(opened)
        answers.expect(opened.send("usage.corrected", order), name)
        refused = answers.refused(note)
        if not refused and answers.events:
            state = opened.state()
            charge = charges.of_attempt(state, task, number) if number else None
            what = f"{charge.tokens:,} tokens, {dollars(charge.nanos)}" if charge else "as you say"
            say(f"{name} is charged {what}")
            say(disputed_line(state) or "Nothing is disputed.")
    if refused:
        raise typer.Exit(1)


def _only_attempt(state: State, task: str) -> int:
    """The number of the attempt where there was but one; 0 for a foreign report."""
    if task in state.disputes:
        return 0
    record = state.record_of(task)
    if record is None:
        raise Refused(
            f"neither a task nor a disputed report is named {task}",
            hint="`asb correct` lists what is disputed, `asb tasks` the tasks",
        )
    if record.attempt != 1:
        raise Refused(
            f"task {task} had {count(record.attempt, 'attempt')}", hint="say which: --attempt N"
        )
    return 1


# -- what is disputed ----------------------------------------------------------------------------


def _list(as_json: bool) -> None:
    with options.opened() as opened:
        state = opened.state()
    rows = disputes(state)
    if as_json:
        say_json({"as_of": state.meta.log_id, "disputed": rows})
        return
    if not rows:
        say("Nothing is disputed.")
        return
    heads = ("TASK OR REPORT", "ATTEMPT", "AGENT", "CHARGED", "DISPUTED", "MONEY", "SINCE")
    cells = [
        (
            row["task"],
            (str(row["attempt"]) if row["attempt"] else "foreign")
            + (", running" if row["running"] else ""),
            row["agent"],
            f"{row['tokens']:,}",
            f"{row['disputed_tokens']:,}",
            dollars(row["disputed_cost_nanos"], 2),
            row["at"][:16].replace("T", " "),
        )
        for row in rows
    ]
    say(table(heads, cells, right="CHARGED DISPUTED MONEY", width=width()))
    note("settle each: asb correct TASK --attempt N (--tokens N | --accept | --drop) --reason …")
