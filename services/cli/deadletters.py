"""deadletter: what was refused at the intakes, and why; correct it and send it again, or drop
it."""

from __future__ import annotations

from typing import Annotated

import typer

from events.secrets import MASK
from projections.format import count
from projections.views import iso
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.client.bus import Bus
from services.client.dead_letters import (
    Change,
    Letter,
    corrected,
    dead_letter,
    dead_letters,
    dropped_count,
    newest,
    shown,
    view,
)
from services.client.follow import Answers
from services.runtime.errors import AsbError, CommandRefused, Refused
from services.screens.text import fitted
from services.store.log import parse_id

LISTED = 50
VERDICT_S = 1.5  # how long the engine is asked what it says to what was sent again
SHOWN_BYTES = 2_000  # of one field on a screen
ACTIONS = ("list", "show", "retry", "drop")


def deadletter(
    action: Annotated[str, typer.Argument(help="list, show, retry or drop.")] = "list",
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids as `list` shows them.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="With retry: correct a field of the data first (or `type`); FIELD= removes it. "
            "May be repeated.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="With retry, drop, list: all of them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Entries that were refused at an intake: list them, show one, send it again, drop it.

    `retry` sends an entry to the intake it came from, once, and takes it from the dead letters. It
    waits at most 1.5 s for the engine: what is refused again is an error, with the new reason.
    """
    if action not in ACTIONS:
        raise typer.BadParameter(f"{action!r} is not one of {', '.join(ACTIONS)}")
    wanted = list(ids or [])
    if action != "list" and not wanted and not (every and action != "show"):
        raise typer.BadParameter(f"{action} which? `asb deadletter` lists their ids")
    if set_ and action != "retry":
        raise typer.BadParameter("--set goes with retry")
    changes = [_change(text) for text in set_ or []]
    with options.opened() as bus:
        if action == "list":
            _list(bus, as_json, 0 if every else LISTED)
            return
        letters = list(dead_letters(bus)) if every else [dead_letter(bus, name) for name in wanted]
        if action == "show":
            for letter in letters:
                _show(letter, as_json)
        elif action == "retry":
            _retry(bus, letters, changes, as_json)
        else:
            for letter in letters:
                bus.client.call("XDEL", bus.keys.deadletter, letter.id)
            _done(f"dropped {count(len(letters), 'dead letter')}", letters, as_json)


# -- showing -------------------------------------------------------------------------------------


def _list(bus: Bus, as_json: bool, limit: int) -> None:
    letters = newest(bus, limit)
    if as_json:
        say_json([view(letter) for letter in letters])
        return
    if not letters:
        note("no dead letters: nothing was refused")
        return
    rows = [
        (x.id, iso(parse_id(x.id)[0] * 1000), x.intake, x.type, " ".join(x.error.split()))
        for x in letters
    ]
    say(fitted(("ID", "WHEN", "INTAKE", "TYPE", "ERROR"), rows, width()))
    whole = bus.client.call("XLEN", bus.keys.deadletter)
    if whole > len(letters):
        note(f"the newest {len(letters):,} of {whole:,}; --all shows all")
    if dropped := dropped_count(bus):
        note(f"{count(dropped, 'older one')} had to go: [deadletters] sets how many are kept")
    note("asb deadletter show|retry|drop ID")


def _show(letter: Letter, as_json: bool) -> None:
    if as_json:
        say_json(view(letter))
        return
    say(f"DEAD LETTER {letter.id}")
    say(f"  when    {iso(parse_id(letter.id)[0] * 1000)}")
    say(f"  intake   {letter.intake}  entry {letter.entry}")
    say(f"  error   {letter.error}")
    if letter.is_cut:
        say(f"  size    {letter.size:,} bytes, of which {letter.kept:,} were kept")
    for name, value in zip(letter.fields[::2], letter.fields[1::2], strict=False):
        text = shown(value[:SHOWN_BYTES])
        more = f" … {len(value):,} bytes in all" if len(value) > SHOWN_BYTES else ""
        say(f"  {shown(name[:200]):<7} {text}{more}")


def _done(said: str, letters: list[Letter], as_json: bool) -> None:
    if as_json:
        for letter in letters:
            say_json({"id": letter.id}, pretty=False)
    else:
        note(said)


# -- sending again -------------------------------------------------------------------------------


def _change(text: str) -> Change:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--set {text!r} is not FIELD=VALUE")
    return name, value


def _retry(bus: Bus, letters: list[Letter], changes: list[Change], as_json: bool) -> None:
    answers = Answers(bus)
    for letter in letters:
        if not letter.intake:
            raise Refused(
                f"dead letter {letter.id} names no intake: asb did not write it",
                hint=f"asb deadletter drop {letter.id}",
            )
        if letter.is_cut:
            raise Refused(
                f"dead letter {letter.id} was {letter.size:,} bytes long, and only "
                f"{letter.kept:,} were kept",
                hint=f"submit it anew, then: asb deadletter drop {letter.id}",
            )
        fields = corrected(letter, changes)
        if any(MASK.search(field.decode(errors="replace")) for field in fields):
            raise Refused(
                f"dead letter {letter.id} held a secret, which is masked in what was kept",
                hint="submit it anew, or --set FIELD=VALUE for the field that holds the mask",
            )
        # Sent under an id of its own, so a crash before the next line cannot make it count twice.
        try:
            entry = bus.client.call("XADD", letter.intake, "*", *fields)
        except CommandRefused as error:
            raise AsbError(
                f"the intake {letter.intake} refuses: {error}", hint="see `asb doctor`"
            ) from error
        answers.expect(entry.decode(), letter.id, letter.intake)
        bus.client.call("XDEL", bus.keys.deadletter, letter.id)
        if as_json:
            say_json(
                {"id": letter.id, "intake": letter.intake, "entry": entry.decode()}, pretty=False
            )
        else:
            say(entry.decode())
    refused = list(answers.refusals(VERDICT_S))
    for name, error in refused:
        note(f"error: {name} was refused again: {error}")
    if refused:
        field = "task=NEW" if "choose another id" in refused[-1][1] else "FIELD=VALUE"
        note(f"hint: `asb deadletter` lists it anew, under a new id; retry ID --set {field}")
        raise typer.Exit(1)
