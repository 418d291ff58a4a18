"""submit: tasks in, one id a line out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from events import amounts
from events.money import dollars
from projections.format import count, first_line, span
from services.cli import options
from services.cli.terminal import note, say, say_json
from services.cli.typed import number, typed
from services.client.bus import Bus
from services.client.follow import Ended, Follower
from services.client.importers import From, Source, Take, opened_source
from services.client.story import result_of
from services.client.submissions import BATCH, BadLine, Checker, Submission, send
from services.client.verdicts import Verdicts, hint
from services.queries.history import ended_view
from services.queries.joined import nobody_is
from services.queries.stalled import Stalled
from services.runtime import initial_policy
from services.runtime.errors import Refused

PROGRESS_FROM = 2_000  # fewer are in before a bar could be read
ERRORS_SHOWN = 20

Texts = Annotated[list[str] | None, typer.Argument(help="What is to be done, a task each.")]
OnError = Annotated[
    str,
    typer.Option(
        help="What a broken task does: stop (none goes in) or skip (the good ones go in)."
    ),
]


Priority = Annotated[str | None, typer.Option(help="low, normal, high or critical.")]
Kind = Annotated[str | None, typer.Option(help="Its kind, where the delegator need not guess.")]
OnlyAgent = Annotated[str | None, typer.Option(help="Only an agent of this name may do it.")]
Id = Annotated[
    str | None,
    typer.Option(
        "--id",
        help="Task id and idempotency key: the same submission again changes nothing. "
        "For several tasks -1, -2, … is added.",
    ),
]
After = Annotated[
    list[str] | None, typer.Option(help="Only once this task is completed; may be repeated.")
]
Estimate = Annotated[str | None, typer.Option(help="Tokens it may take: 200K.")]
Reuse = Annotated[
    bool, typer.Option("--reuse", help="Take the result of an equal task that was completed.")
]
WaitLimit = Annotated[
    float | None,
    typer.Option(
        callback=number,
        min=0,
        max=10**9,
        help="Wait, but so many seconds at most; the tasks go on.",
    ),
]


def submit(
    text: Texts = None,
    priority: Priority = None,
    kind: Kind = None,
    agent: OnlyAgent = None,
    model: Annotated[str | None, typer.Option(help="Only with this model.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only this worker.")] = None,
    project: Annotated[str | None, typer.Option(help="The project it is charged on.")] = None,
    id_: Id = None,
    after: After = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds an attempt may take.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts before it has failed.")] = None,
    estimate: Estimate = None,
    file: Annotated[
        str | None,
        typer.Option(
            help="A task a line: text, or JSON (text, id, priority, after: […], …); - is stdin."
        ),
    ] = None,
    from_: From = None,
    take: Take = False,
    reuse: Reuse = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended.")] = False,
    wait_limit: WaitLimit = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    on_error: OnError = "stop",
) -> None:
    """Submit tasks: arguments, a file, or lines on the standard input (`-`).

    Prints one task id a line. Exit code 1 when a task was refused, with --wait also when one
    failed or had not ended in time.

    With --after, --id or --model only the engine can say whether it takes a task: its answer is
    waited for, 1.5 s at most. Without one by then the tasks stand at the intake, and `asb task ID`
    tells later.
    """
    if on_error not in ("stop", "skip"):
        raise typer.BadParameter("--on-error is stop or skip")
    texts, file = _named(text, file, from_)
    common = _given(
        priority=priority,
        kind=kind,
        agent=agent,
        model=model,
        worker=worker,
        project=project,
        after=list(after or ()) or None,
        timeout_s=timeout,
        max_attempts=max_attempts,
        estimate_tokens=None if estimate is None else typed("--estimate", estimate, amounts.count),
        reuse=reuse or None,
    )
    with options.opened() as bus:
        checker = Checker(common, initial_policy.defaults(bus.settings), id_ or "")
        source = opened_source(from_, bus.client, take)
        good, bad = _sorted([*_read(checker, texts, file), *source.checked(checker)])
        if bad and on_error == "stop":
            raise _none_in(bad, good)
        follower = None
        if wait or wait_limit is not None:
            follower = Follower(bus, Stalled(bus, note).look)
        verdict = follower is None and bool(after or id_ or model)
        _say_who_is_missing(bus, agent)
        failed = _run(bus, good, source, follower, as_json=as_json, verdict=verdict)
        if follower is not None:
            failed += _wait(follower, len(good), as_json, wait_limit)
    if bad:
        note(_listed(bad, good))
    if bad or failed:
        raise typer.Exit(1)


def _say_who_is_missing(bus: Bus, agent: str | None) -> None:
    """To a person only: it takes a look at the whole bus."""
    if agent is not None and sys.stderr.isatty() and (said := nobody_is(bus.state(), agent)):
        note(said)


def _named(
    text: list[str] | None, file: str | None, source: str | None
) -> tuple[list[str], str | None]:
    """The texts and the file that were given; a lone ``-`` is the file of that name."""
    texts = list(text or [])
    if file is None and texts == ["-"]:
        return [], "-"
    if not texts and file is None and source is None:
        raise typer.BadParameter(
            "nothing to submit: give a text, --file FILE, --from or - for stdin"
        )
    return texts, file


def _none_in(bad: list[BadLine], good: list[Submission]) -> Refused:
    alone = len(bad) == 1 and not good
    hint = "correct it" if alone else "correct them, or --on-error skip"
    return Refused(_listed(bad, good), hint=hint)


def _given(**options: object) -> dict[str, Any]:
    """The options that were given, under the names they have in a submission."""
    return {name: value for name, value in options.items() if value is not None}


def _read(checker: Checker, texts: list[str], file: str | None) -> Iterator[Submission | BadLine]:
    yield from checker.texts(texts)
    if file == "-":
        yield from checker.lines(sys.stdin.buffer)
    elif file is not None:
        try:
            with Path(file).open("rb") as opened:
                yield from checker.lines(opened)
        except OSError as error:
            raise Refused(
                f"cannot read {file}: {error.strerror}", hint="check the path; nothing went in"
            ) from error


def _sorted(checked: Iterable[Submission | BadLine]) -> tuple[list[Submission], list[BadLine]]:
    good: list[Submission] = []
    bad: list[BadLine] = []
    for submission in checked:
        if isinstance(submission, Submission):
            good.append(submission)
        else:
            bad.append(submission)
    return good, bad


def _listed(bad: list[BadLine], good: list[Submission]) -> str:
    head = f"{len(bad):,} of {count(len(bad) + len(good), 'task')} cannot be accepted:"
    lines = [f"  {bad_line.where}: {bad_line.error}" for bad_line in bad[:ERRORS_SHOWN]]
    if len(bad) > ERRORS_SHOWN:
        lines.append(f"  … and {len(bad) - ERRORS_SHOWN:,} more")
    if len(bad) == 1 and not good:
        return bad[0].error
    return "\n".join((head, *lines))


def _run(
    bus: Bus,
    good: list[Submission],
    source: Source,
    follower: Follower | None,
    *,
    as_json: bool,
    verdict: bool,
) -> int:
    """Send, print, and tell a follower; how many were refused."""
    verdicts = Verdicts(bus, good) if verdict else None
    sent: list[str] = []
    unsure: list[tuple[str, str]] = []  # tasks that the engine may still refuse, and their lines
    refused: list[tuple[str, str]] = []
    try:
        for entry, submission in zip(_send(bus, good), good, strict=True):
            task = submission.task or entry
            if follower is not None:
                follower.expect(entry, task, submission.id, submission.data)
            line = task
            if as_json:
                line = msgspec.json.encode({"task": task, "entry": entry}).decode()
            if verdicts is not None:
                verdicts.expect(entry, submission)
                unsure.append((task, line))
            elif not as_json or follower is None:
                sent.append(line)
            # On a terminal the bar has the floor until all are in.
            if len(sent) >= BATCH and not sys.stdout.isatty():
                _print(sent)
        _print(sent)
        source.done()
        refused += verdicts.refusals() if verdicts is not None else ()
    finally:  # whatever ends this: what stands at the intake has an id
        names = {task for task, _ in refused}
        _print([*sent, *(line for task, line in unsure if task not in names)])
    for task, error in refused:
        note(f"error: {task} was refused: {error}\nhint: {hint(error)}")
    return len(refused)


def _print(lines: list[str]) -> None:
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        lines.clear()


def _send(bus: Bus, tasks: list[Submission]) -> Iterator[str]:
    """The entry ids, with a bar where there are many."""
    with _bar(len(tasks)) as progress:
        bar = progress.add_task("submitting", total=len(tasks) or None)
        yield from send(bus, tasks, lambda done: progress.update(bar, completed=done))


def _bar(total: int) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # data goes where it should even while the bar is shown
        redirect_stderr=False,
        disable=not console.is_terminal or total < PROGRESS_FROM,
    )


# -- waiting -----------------------------------------------------------------------------------


def _wait(follower: Follower, expected: int, as_json: bool, limit_s: float | None) -> int:
    """Print how each task ended; how many did not end well, or not within the time."""
    failed = 0
    try:
        for ended in follower.ends(limit_s):
            failed += not ended.good
            if as_json:
                say_json(ended_view(ended), pretty=False)
            else:
                say(_outcome(ended, whole=expected == 1))
                sys.stdout.flush()
    except KeyboardInterrupt:
        _say_on(follower.open)
        raise typer.Exit(1) from None
    if follower.open:
        _say_on(follower.open)
    return failed + len(follower.open)


def _say_on(tasks: list[str]) -> None:
    more = f" and {len(tasks) - 1:,} more" if len(tasks) > 1 else ""
    task = tasks[0] if tasks else "ID"
    note(
        f"not waiting any longer; the tasks go on: {task}{more}\n"
        f"hint: `asb task {task}` shows it, `asb tasks` lists all, `asb cancel {task}` stops it"
    )


def _outcome(ended: Ended, *, whole: bool) -> str:
    """``ID  completed  by w1 in 4.2 s, 1,234 tokens, $0.0037`` and a single result."""
    words = [f"{ended.task}  {ended.status}"]
    story = ended.story
    if story is not None:
        worker = story.last("task.dispatched")
        took = span(story.took_us)
        by = f"by {worker.data.worker} " if worker is not None else ""
        words.append(
            f"{by}in {took}, {story.charged.tokens:,} tokens, {dollars(story.charged.nanos)}"
        )
    if ended.error:
        words.append(first_line(ended.error))
    line = "  ".join(words)
    result = result_of(story.events) if story is not None else None
    return f"{line}\n{result}" if whole and isinstance(result, str) and result.strip() else line
