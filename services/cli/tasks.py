"""tasks, task, cancel, retry."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import msgspec
import typer
from rich.cells import cell_len

from events.envelope import Event
from events.task import PRIORITIES
from projections.state import State
from projections.tasks import BACKOFF, BLOCKED, FAILED, QUEUED, RUNNING, SUBMITTED, Outcome, Task
from projections.views import iso
from services.cli import bus, delegator, follow, history, out, submit
from services.cli.bus import Bus
from services.cli.follow import Answers
from services.cli.history import Story
from services.cli.lines import Submission
from services.cli.unknown import foreign, say_foreign, unknown
from services.cli.waiting import Waiting
from services.cli.words import span
from services.runtime.errors import Refused
from services.runtime.heartbeat import beats, missing

WAITING = (SUBMITTED, BLOCKED, QUEUED, BACKOFF)
STATUSES = (*WAITING, *RUNNING, "completed", "failed", "cancelled")
LIMIT = 50
TEXT_CELLS = 24  # what the text of a task gets at least, where columns can give way


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
    with bus.opened() as b:
        state, now = b.state(), b.now()
        chosen = _chosen(state, wanted)
        shown = list(islice(chosen, limit or None))
        rows = _rows(b, state, now, shown)
    if as_json:
        out.say_json(rows)
        return
    if not rows:
        out.note("no tasks" if wanted == set(STATUSES) else "no such tasks")
        return
    out.say(_table(rows))
    total = sum(t.status in wanted for t in state.tasks.values())
    total += sum(o.status in wanted for o in state.outcomes.values())
    if total > len(rows):
        out.note(f"{total - len(rows):,} more; --limit 0 lists all")


def _chosen(state: State, wanted: set[str]) -> list[tuple[str, Task | Outcome]]:
    opened = [t for t in state.tasks.values() if t.status in wanted]
    opened.sort(key=lambda t: (t.status not in RUNNING, t.status != QUEUED, t.rank, t.n))
    ended = (
        (task, outcome)
        for _, task in sorted(state.ended_order.items(), reverse=True)
        if (outcome := state.outcomes[task]).status in wanted
    )
    return [*((t.id, t) for t in opened), *ended]


def _rows(
    b: Bus, state: State, now: int, chosen: list[tuple[str, Task | Outcome]]
) -> list[dict[str, Any]]:
    submissions = _submissions(b, chosen)
    why = Waiting(state, now, missing(beats(b.client, b.keys)))
    rows: list[dict[str, Any]] = []
    for task_id, found in chosen:
        event = submissions.get(task_id)
        row = _open_row(found, why) if isinstance(found, Task) else _ended_row(found)
        row["text"] = event.data.text if event is not None else ""
        row["priority"] = event.data.priority if event is not None else row.get("priority", "")
        submitted_at = event.at if event is not None else row.pop("_at", now)
        row.pop("_at", None)
        row["submitted_at"], row["age_us"] = iso(submitted_at), now - submitted_at
        rows.append({"task": task_id, **row})
    return rows


def _submissions(b: Bus, chosen: list[tuple[str, Task | Outcome]]) -> dict[str, Event]:
    """The submission of each task; for ended ones its place stands in the task's index."""
    ended = [task for task, found in chosen if isinstance(found, Outcome)]
    firsts = b.client.pipeline(("LINDEX", b.keys.task_index(task), 0) for task in ended)
    places = {task: found.log_id for task, found in chosen if isinstance(found, Task)}
    places |= {
        t: first.decode()
        for t, first in zip(ended, firsts, strict=True)
        if isinstance(first, bytes)
    }
    found = b.events_at(list(places.values()))
    return {task: found[place] for task, place in places.items() if place in found}


def _open_row(task: Task, why: Waiting) -> dict[str, Any]:
    return {
        "status": task.status,
        "priority": PRIORITIES[task.priority],
        "kind": task.kind,
        "agent": task.run_agent if task.status in RUNNING else task.agent,
        "model": task.run_model if task.status in RUNNING else task.model,
        "worker": task.worker or None,
        "attempt": task.attempt,
        "waiting": why.reason(task) or None,
        "tokens": task.spent_tokens + task.used_tokens,
        "cost_nanos": task.spent_nanos + task.used_nanos,
        "_at": task.submitted_at,
    }


def _ended_row(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "kind": outcome.kind,
        "agent": outcome.agent,
        "model": outcome.model,
        "worker": outcome.worker or None,
        "attempt": outcome.attempt,
        "waiting": None,
        "tokens": outcome.tokens,
        "cost_nanos": outcome.nanos,
        "ended_at": iso(outcome.at),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    most = out.width()
    below = most > 0 and any(row["waiting"] for row in rows)  # each reason on a line of its own
    columns: dict[str, list[str]] = {
        "TASK": [row["task"] for row in rows],
        "STATUS": [row["status"] for row in rows],
        "PRIORITY": [row["priority"] for row in rows],
        "KIND": [row["kind"] or "-" for row in rows],
        "ROUTE": ["/".join(x for x in (row["agent"], row["model"]) if x) or "-" for row in rows],
        "WORKER": [row["worker"] or "-" for row in rows],
        "AGE": [span(row["age_us"]) for row in rows],
        "WAITS FOR": [row["waiting"] or "-" for row in rows],
        "TEXT": [out.first_line(row["text"]) for row in rows],
    }
    if below or not any(row["waiting"] for row in rows):
        del columns["WAITS FOR"]
    if 0 < most < 120 and not any(row["worker"] for row in rows):
        del columns["WORKER"]
    for name in ("KIND", "PRIORITY", "ROUTE") if most else ():  # the text needs some room, too
        if sum(max(cell_len(x) for x in (n, *c)) + 2 for n, c in columns.items() if n != "TEXT") > (
            most - TEXT_CELLS
        ):
            del columns[name]
    cells = list(zip(*columns.values(), strict=True))
    lines = out.table(tuple(columns), cells, right="AGE", most=most).splitlines()
    if not below:
        return "\n".join(lines)
    shown = lines[:1]
    for line, row in zip(lines[1:], rows, strict=True):
        shown.append(line)
        if row["waiting"]:
            shown.append(out.folded(row["waiting"], most, "    "))
    return "\n".join(shown)


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
        delegator.check_was(was)
    with bus.opened() as b:
        state, now = b.state(), b.now()
        events = follow.story(b, id_)
        if not events and (told := foreign(b, state, id_)):
            say_foreign(id_, told, as_json=as_json)
            return
        if not events:
            raise unknown(b, state, id_)
        found = state.tasks.get(id_)
        outcome = state.outcomes.get(id_)
        if was is not None:
            delegator.correction(b, id_, was)
            return
        status = found.status if found else outcome.status if outcome else history.status_of(events)
        gone = missing(beats(b.client, b.keys))
        waits = Waiting(state, now, gone).reason(found) if found is not None else ""
        story = Story(id_, events, status, waits)
    if as_json:
        out.say_json(history.view(story))
    else:
        out.say(history.text(story, out.width()))


# -- changing what goes on -----------------------------------------------------------------------


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Tasks that shall not be done.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Cancel tasks: waiting ones at once; of running ones every process is ended first."""
    with bus.opened() as b:
        answers = Answers(b)
        for task_id in ids:
            data: dict[str, object] = {"task": task_id}
            if reason:
                data["reason"] = reason
            answers.expect(b.send("task.cancel_requested", data), task_id)
        refused = answers.refused()
        for task_id, event in answers.events.items():
            word = "cancelled" if event.type == "task.cancelled" else "being cancelled"
            out.say(f"{task_id}  {word}")
    if refused:
        out.note("hint: `asb tasks` lists what there is; what has ended stays as it is")
        raise typer.Exit(1)


def retry(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Ended tasks to do again.")],
) -> None:
    """Submit ended tasks again, as new tasks that name the old ones; prints the new ids."""
    with bus.opened() as b:
        state = b.state()
        again = [_again(b, state, task_id) for task_id in ids]
        answers = Answers(b)
        for entry, task_id in zip(submit.send(b, again), ids, strict=True):
            out.say(entry)
            answers.expect(entry, f"retry of {task_id}")
        refused = answers.refused()
    if refused:
        raise typer.Exit(1)


def _again(b: Bus, state: State, task_id: str) -> Submission:
    """The old submission without its place in the world: id, and what it waited for."""
    if task_id in state.tasks:
        raise Refused(
            f"task {task_id} has not ended: it is {state.tasks[task_id].status}",
            hint=f"cancel it first: asb cancel {task_id}",
        )
    events = follow.story(b, task_id)
    if not events:
        raise unknown(b, state, task_id)
    fields: dict[str, Any] = msgspec.json.decode(events[0].raw)
    for name in ("v", "task", "after"):
        fields.pop(name, None)
    fields["retry_of"] = task_id
    return Submission(msgspec.json.encode(fields))
