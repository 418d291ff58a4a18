"""tasks, task, cancel, retry."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer

from events.task import KINDS
from projections.records import FAILED, RUNNING
from services.cli import options
from services.cli.lookup import say_foreign
from services.cli.terminal import note, say, say_json, width
from services.client.bus import Bus
from services.client.follow import Answers, story
from services.client.lookup import foreign, not_open, unknown
from services.client.orders import again_of
from services.client.submissions import send
from services.queries.history import history_view
from services.queries.missing import missing_names
from services.queries.tasks import ENDED, WAITING, choose, count, standing, task_rows
from services.screens.history import history_text
from services.screens.tasks import tasks_table
from services.store.heartbeat import beats

STATUSES = (*WAITING, *RUNNING, *ENDED)
LIMIT = 50


def tasks(
    waiting: Annotated[bool, typer.Option("--waiting", help="What waits, and why.")] = False,
    running: Annotated[bool, typer.Option("--running", help="What runs now.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="What failed for good.")] = False,
    status: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(STATUSES)}; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List tasks: running, then waiting in the order they are tried, then the newest ended."""
    wanted = set(status or [])
    if unknown := wanted - set(STATUSES):
        raise typer.BadParameter(f"--status {unknown.pop()}: one of {', '.join(STATUSES)}")
    wanted |= set(WAITING if waiting else ()) | set(RUNNING if running else ())
    wanted |= {FAILED} if failed else set()
    wanted = wanted or set(STATUSES)
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
        shown = list(islice(choose(state, wanted), min(limit, sys.maxsize) or None))
        rows = task_rows(bus, state, now, shown)
    if as_json:
        say_json(rows)
        return
    if not rows:
        note("no tasks" if wanted == set(STATUSES) else "no such tasks")
        return
    say(tasks_table(rows, width()))
    if (more := count(state, wanted) - len(rows)) > 0:
        note(f"{more:,} more; --limit 0 lists all")


# -- one task ----------------------------------------------------------------------------------


def task(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The task's id, as submit printed it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Every event, as JSON.")] = False,
    was: Annotated[
        str | None, typer.Option(metavar="KIND", help="What it really was: the delegator learns.")
    ] = None,
) -> None:
    """One task's whole history: route and reason, attempts, tokens, cost, result, and the times.

    Of foreign work, which asb did not give out, the progress that was told.
    """
    if was is not None:
        _check_kind(was)
    with options.opened() as bus:
        state, now = bus.state(), bus.now()
        events = story(bus, id_)
        if not events and (reported := foreign(bus, state, id_)):
            say_foreign(id_, reported, as_json=as_json)
            return
        if not events:
            raise unknown(bus, state, id_)
        if was is not None:
            from services.cli import delegator  # a look at a task needs none of it

            delegator.correction(bus, id_, was)
            return
        whole = standing(bus, state, now, id_, events)
    if as_json:
        say_json(history_view(whole))
    else:
        say(history_text(whole, width()))


def _check_kind(was: str) -> None:
    """Exit code 2 for a kind that there is not."""
    if was not in KINDS:
        raise typer.BadParameter(f"--was {was}: one of {', '.join(KINDS)}")


# -- changing what goes on -----------------------------------------------------------------------


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Tasks that shall not be done.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Cancel tasks: waiting ones at once; of running ones every process is ended first."""
    with options.opened() as bus:
        _check_open(bus, ids)
        answers = Answers(bus)
        for task_id in ids:
            data: dict[str, object] = {"task": task_id}
            if reason:
                data["reason"] = reason
            answers.expect(bus.send("task.cancel_requested", data), task_id)
        refused = answers.refused(note)
        for task_id, event in answers.events.items():
            word = "cancelled" if event.type == "task.cancelled" else "being cancelled"
            say(f"{task_id}  {word}")
        for task_id in answers.unchanged:
            say(f"{task_id}  being cancelled (as before)")
    if refused:
        note("hint: `asb tasks` lists what there is; what has ended stays as it is")
        raise typer.Exit(1)


def _check_open(bus: Bus, ids: list[str]) -> None:
    """Refuse what is mistyped before anything is sent: no dead letter shall stay of it. Where no
    engine runs, what stands at an intake may become such a task, and it is for the engine to say.
    """
    if "intake" in missing_names(beats(bus.client, bus.keys)):
        return
    state = bus.state()
    for task_id in ids:
        if refusal := not_open(bus, state, task_id):
            raise refusal


def retry(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Ended tasks to do again.")],
) -> None:
    """Submit ended tasks again, as new tasks that name the old ones; prints the new ids."""
    with options.opened() as bus:
        state = bus.state()
        again = [again_of(bus, state, task_id, note) for task_id in ids]
        answers = Answers(bus)
        for entry, task_id in zip(send(bus, again), ids, strict=True):
            say(entry)
            note(f"{entry} does {task_id} again")
            answers.expect(entry, f"retry of {task_id}")
        refused = answers.refused(note)
    if refused:
        raise typer.Exit(1)
