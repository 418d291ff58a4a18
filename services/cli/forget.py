"""forget: what was written for a task leaves the bus."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from projections.format import count
from services.cli import options
from services.cli.terminal import note, say
from services.cli.typed import number
from services.client import forgetting
from services.client.bus import Bus
from services.client.traces import Trace, pieces_of, search, words_on_log
from services.runtime.errors import Refused

Wait = Annotated[
    float,
    typer.Option(
        callback=number, min=0, max=86_400, help="Seconds to wait until the words are gone."
    ),
]


def forget(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Tasks to forget.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="All that ran on this agent or worker.")] = None,
    project: Annotated[str | None, typer.Option(help="All of this project.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="All that ended before this date, UTC.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then search Redis, byte by byte, for what they said.")
    ] = False,
    looking_for: Annotated[
        Path | None, typer.Option(help="With --verify: a file with the text to search for.")
    ] = None,
    within: Wait = 300.0,
) -> None:
    """Forget what was written for tasks: prompts, answers, errors, reasons, progress documents.

    Figures stay. What is open of them is cancelled first. From the moment it is on the log nothing
    shows the words; then log, intakes, inboxes and dead letters are written anew without them,
    progress keys are deleted, and the server's append-only file is rewritten. Retries of a task
    carry its text and are forgotten with it.

    Not reached: what the agents keep themselves (transcripts, their providers), terminals, archives
    and backups of Redis.
    """
    named = list(dict.fromkeys(ids or ()))
    if bool(named) == bool(agent or project or before):
        raise typer.BadParameter("give ids, or --agent, --project, --before")
    if looking_for is not None and not verify:
        raise typer.BadParameter("--looking-for goes with --verify")
    moment = _moment(before) if before else 0
    with options.opened() as bus:
        chosen = forgetting.choose(
            bus, named, agent=agent or "", project=project or "", before=moment
        )
        _check(chosen, named, verify)
        texts = words_on_log(bus, chosen.tasks) if verify else []
        if looking_for is not None:
            texts.append(looking_for.read_text(encoding="utf-8", errors="surrogateescape"))
        done = True
        if chosen.tasks:
            _ask(chosen, yes)
            done = _forget(bus, chosen.tasks, within)
        if verify:
            done = _verify(bus, texts) and done
    if not done:
        raise typer.Exit(1)


def _moment(date: str) -> int:
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        raise typer.BadParameter(f"--before {date} is no date such as 2026-03-31") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()) * 1_000_000


def _check(chosen: forgetting.TasksToForget, named: list[str], verify: bool) -> None:
    if chosen.unknown:
        raise Refused(
            f"there is no task {chosen.unknown[0]}; nothing was forgotten",
            hint="`asb tasks` lists them; a refused entry: `asb deadletter drop ID`",
        )
    if not chosen.tasks and not (named and verify):
        note("forgotten before" if named else "no task is meant by that")


def _ask(chosen: forgetting.TasksToForget, yes: bool) -> None:
    what = count(len(chosen.tasks), "task")
    retries = f", {count(chosen.retries, 'retry', 'retries')} among them" if chosen.retries else ""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"this forgets {what}{retries} for good", hint="--yes says that you mean it")
    typer.confirm(f"Forget what was written for {what}{retries}, for good?", abort=True, err=True)


def _forget(bus: Bus, tasks: list[str], within: float) -> bool:
    since = bus.last_id()
    forgetting.request(bus, tasks)
    progress = forgetting.follow(bus, tasks, since, within)
    what = count(len(tasks), "task")
    if not progress.taken:
        note(
            f"no engine has taken this in within {within:g} s; it is kept and will be\n"
            "hint: `asb up` or `asb service engine` runs one"
        )
        return False
    if progress.removed is None:
        why = progress.problem or f"it takes longer than {within:g} s; the engine goes on with it"
        note(f"{what} forgotten: nothing shows their words; these still stand in Redis: {why}")
        return False
    entries = count(progress.removed.entries, "entry", "entries")
    say(f"forgot {what}: the words of {entries} of the log are gone")
    if progress.removed.kept:
        note(f"the server may still hold the bytes in {progress.removed.kept}")
    return True


def _verify(bus: Bus, texts: list[str]) -> bool:
    pieces = pieces_of(texts)
    if not pieces:
        raise Refused(
            "nothing was verified: what these tasks said is too short to search for, or was gone "
            "before",
            hint="--looking-for FILE names a file with the text",
        )
    trace: Trace = search(bus, pieces)
    say(f"searched for {count(len(pieces), 'piece')} of the texts in {', '.join(trace.looked)}")
    for where in trace.left:
        say(f"not searched: {where}")
    for place in trace.places:
        say(f"there: {place}")
    if not trace.places:
        say("nothing of it is there" if not trace.left else "nothing of it is in what was searched")
    return not trace.places and not trace.left
