"""account: which accounts their providers have limited, and until when."""

from __future__ import annotations

from typing import Annotated

import typer

from projections.format import count
from services.cli import options
from services.cli.limits import AsJson, Reason
from services.cli.terminal import note, say, say_json
from services.client.follow import Answers
from services.queries.accounts import account_text, accounts_view
from services.runtime.errors import Refused

app = typer.Typer(
    help="Accounts at providers: who is refused, and until when.",
    invoke_without_command=True,
)


@app.callback()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """List the accounts of living workers, and what their providers refuse.

    A worker names its account with --account; without it, workers of one agent on one machine
    share one. While an account is limited its workers get nothing new, and what was refused waits
    without losing a try.
    """
    if context.invoked_subcommand is not None:
        return
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
    view = accounts_view(state, now)
    if as_json:
        say_json(view)
        return
    if not view["accounts"]:
        say("no worker is alive, and no account is limited")
    for row in view["accounts"]:
        if row["limited"]:
            say(account_text(state.accounts[row["account"]], now))
        else:
            say(f"{row['account']}: {count(len(row['workers']), 'worker')}, not limited")


@app.command()
def release(
    account: Annotated[str, typer.Argument(help="Its name, as `asb account` lists it.")],
    reason: Reason = "",
) -> None:
    """Let the workers of a limited account go on now."""
    with options.opened() as bus:
        known = bus.state().accounts.get(account)
        if known is None or not known.limited:
            raise Refused(f"account {account} is not limited", hint="`asb account` lists them")
        answers = Answers(bus)
        answers.expect(
            bus.send("account.released", {"account": account, "reason": reason}), account
        )
        if answers.refused(note):
            raise typer.Exit(1)
    say(f"{account} is released")
