"""deadletter: what was refused at the intakes, and why; correct it and send it again, or drop
it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from projections.format import count
from projections.views import iso
from services.cli import options
from services.cli.terminal import note, say, say_json, width
from services.client.bus import Bus
from services.client.follow import Answers
from services.runtime.errors import AsbError, CommandRefused, Refused
from services.screens.text import table
from services.store.log import parse_id

READ_COUNT = 500
LISTED = 50
VERDICT_S = 1.5  # how long the engine is asked what it says to what was sent again
SHOWN_BYTES = 2_000  # of one field on a screen
HEAD = (b"intake", b"entry", b"error", b"size")
ACTIONS = ("list", "show", "retry", "drop")


class Letter(msgspec.Struct, frozen=True):
    """A dead letter. ``fields`` are those of the refused entry, names and values in turn; ``size``
    is how many bytes it had, which may be more than what was kept of it."""

    id: str
    intake: str
    entry: str
    error: str
    size: int
    fields: list[bytes]

    @property
    def kept(self) -> int:
        return sum(map(len, self.fields))

    @property
    def is_cut(self) -> bool:
        return self.size > self.kept

    @property
    def type(self) -> str:
        return _shown(
            dict(zip(self.fields[::2], self.fields[1::2], strict=False)).get(b"type", b"")
        )


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
        letters = list(_all(bus)) if every else [_letter(bus, name) for name in wanted]
        if action == "show":
            for letter in letters:
                _show(letter, as_json)
        elif action == "retry":
            _retry(bus, letters, changes, as_json)
        else:
            for letter in letters:
                bus.client.call("XDEL", bus.keys.deadletter, letter.id)
            _done(f"dropped {count(len(letters), 'dead letter')}", letters, as_json)


# -- reading -------------------------------------------------------------------------------------


def read(entry: Any) -> Letter:
    """A raw entry of the dead letters. Others may write there, too: nothing is certain."""
    entry_id, flat = entry
    fields: list[bytes] = list(flat)
    if tuple(fields[0:8:2]) != HEAD or not fields[7].isdigit():
        return Letter(entry_id.decode(), "", "", "", 0, fields)
    intake, place, error = (_shown(value) for value in fields[1:6:2])
    return Letter(entry_id.decode(), intake, place, error, int(fields[7]), fields[8:])


def _all(bus: Bus) -> Iterator[Letter]:
    start = "-"
    while True:
        entries = bus.client.call("XRANGE", bus.keys.deadletter, start, "+", "COUNT", READ_COUNT)
        yield from (read(entry) for entry in entries)
        if len(entries) < READ_COUNT:
            return
        start = f"({entries[-1][0].decode()}"


def _letter(bus: Bus, name: str) -> Letter:
    """The dead letter of this id, or that of an intake entry of this id."""
    try:
        parse_id(name)
        entries = bus.client.call("XRANGE", bus.keys.deadletter, name, name)
    except (ValueError, CommandRefused):
        raise Refused(
            f"{name!r} is not the id of a dead letter", hint="`asb deadletter` lists them"
        ) from None
    if entries:
        return read(entries[0])
    for letter in _all(bus):
        if letter.entry == name:
            return letter
    raise Refused(f"there is no dead letter {name}", hint="`asb deadletter` lists them")


def _shown(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


# -- showing -------------------------------------------------------------------------------------


def _list(bus: Bus, as_json: bool, limit: int) -> None:
    entries = bus.client.call(
        "XREVRANGE", bus.keys.deadletter, "+", "-", *(("COUNT", limit) if limit else ())
    )
    letters = [read(entry) for entry in reversed(entries)]
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
    say(table(("ID", "WHEN", "INTAKE", "TYPE", "ERROR"), rows, width=width()))
    whole = bus.client.call("XLEN", bus.keys.deadletter)
    if whole > len(letters):
        note(f"the newest {len(letters):,} of {whole:,}; --all shows all")
    if dropped := dropped_count(bus):
        note(f"{count(dropped, 'older one')} had to go: [deadletters] sets how many are kept")
    note("asb deadletter show|retry|drop ID")


def dropped_count(bus: Bus) -> int:
    """How many dead letters had to go, the oldest first, for the bounds."""
    reported = bus.client.call("GET", bus.keys.deadletter_dropped)
    return int(reported) if reported is not None and reported.isdigit() else 0


def _show(letter: Letter, as_json: bool) -> None:
    if as_json:
        say_json(view(letter))
        return
    say(f"DEAD LETTER {letter.id}")
    say(f"  when   {iso(parse_id(letter.id)[0] * 1000)}")
    say(f"  intake   {letter.intake}  entry {letter.entry}")
    say(f"  error  {letter.error}")
    if letter.is_cut:
        say(f"  size   {letter.size:,} bytes, of which {letter.kept:,} were kept")
    for name, value in zip(letter.fields[::2], letter.fields[1::2], strict=False):
        text = _shown(value[:SHOWN_BYTES])
        more = f" … {len(value):,} bytes in all" if len(value) > SHOWN_BYTES else ""
        say(f"  {_shown(name[:200]):<6} {text}{more}")


def view(letter: Letter) -> dict[str, Any]:
    """A dead letter for programs. What is not UTF-8 is shown with ``\\xff`` marks."""
    pairs = zip(letter.fields[::2], letter.fields[1::2], strict=False)
    return {
        "id": letter.id,
        "at": iso(parse_id(letter.id)[0] * 1000),
        "intake": letter.intake,
        "entry": letter.entry,
        "type": letter.type,
        "error": letter.error,
        "size": letter.size,
        "cut": letter.is_cut,
        "fields": {_shown(name): _shown(value) for name, value in pairs},
    }


def _done(said: str, letters: list[Letter], as_json: bool) -> None:
    if as_json:
        for letter in letters:
            say_json({"id": letter.id}, pretty=False)
    else:
        note(said)


# -- sending again -------------------------------------------------------------------------------

Change = tuple[str, str]


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
    bad = 0
    for name, error in answers.refusals(VERDICT_S):
        note(f"error: {name} was refused again: {error}")
        bad += 1
    if bad:
        note("hint: `asb deadletter` lists it anew; retry ID --set FIELD=VALUE corrects it")
        raise typer.Exit(1)


def corrected(letter: Letter, changes: list[Change]) -> list[bytes]:
    """The fields of the entry with these changes, and with an idempotency key."""
    names = dict(zip(letter.fields[::2], letter.fields[1::2], strict=False))
    data: dict[str, Any] | None = None
    for name, value in changes:
        if name in ("type", "id", "time") or b"data" not in names:
            _set(names, name.encode(), value.encode() if value else None)
        else:
            data = _data(letter, names[b"data"]) if data is None else data
            _set(data, name, _value(value) if value else None)
    if data is not None:
        names[b"data"] = msgspec.json.encode(data)
    names.setdefault(b"id", f"retry-{letter.id}".encode())
    return [part for pair in names.items() for part in pair]


def _set(fields: dict[Any, Any], name: Any, value: Any) -> None:
    if value is None:
        fields.pop(name, None)
    else:
        fields[name] = value


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, lists, true), else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _data(letter: Letter, raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(
            f"the data of dead letter {letter.id} is no JSON object: no field of it can be set",
            hint=f"submit it anew, then: asb deadletter drop {letter.id}",
        ) from None
