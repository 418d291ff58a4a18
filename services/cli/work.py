"""worker, pause, resume."""

from __future__ import annotations

from typing import Annotated

import anyio
import typer
from msgspec.structs import replace

from events.keys import Keys
from services.cli import options
from services.cli.drivers import (
    Chosen,
    DriverName,
    Folder,
    Isolated,
    Output,
    Permissions,
    Restart,
    Session,
    Silence,
    Worktree,
)
from services.cli.terminal import note, say
from services.runtime import loop
from services.runtime.ending import one_error, stop_at_signals, when_stdin_closes
from services.runtime.errors import Refused
from services.runtime.settings import Settings
from services.runtime.urls import redacted
from services.store.client import Client
from services.store.embedded import resolve_url
from services.worker import WorkerOptions, serve
from services.worker.process import runs


def worker(
    name: Annotated[str, typer.Argument(help="Its name; one worker each.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD…]",
            help="What it runs per task, the prompt on stdin; more arguments for an agent.",
        ),
    ] = None,
    driver: DriverName = None,
    output: Output = "text",
    permissions: Permissions = None,
    cwd: Folder = None,
    worktree: Worktree = None,
    isolated: Isolated = False,
    silence: Silence = None,
    session: Session = None,
    restart: Restart = False,
    capacity: Annotated[int, typer.Option(min=1, help="Tasks it runs at once.")] = 1,
    agent: Annotated[
        str | None, typer.Option(help="The agent it is; without one it serves all.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it serves; may be repeated.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="The account it is charged on.")] = None,
    intake: Annotated[
        str | None, typer.Option(help="Its own intake stream, where it has one.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the name from a worker that is alive.")
    ] = False,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
    keeper: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Run a worker until Ctrl-C: it joins, is given tasks, runs an agent for each, reports.

    --driver claude, codex or gemini runs that program with your own login, and measures its usage;
    tmux gives tasks to Claude Code in a tmux session, yours or one it starts. Without --driver the
    command runs: the prompt is its standard input, or replaces {prompt} in an argument (then one
    that could be an option is refused); it never passes through a shell. Usage is what it writes to
    the file named by ASB_USAGE_FILE (in a shell: to >&3), {"input_tokens": 5, "output_tokens": 9},
    or what its output says in a --format.
    A name belongs to the worker that has it while that is alive; a second one is refused and ends.
    """
    chosen = Chosen(
        driver=driver,
        words=tuple(command or ()),
        output=output,
        permissions=permissions,
        cwd=cwd,
        worktree=worktree,
        isolated=isolated,
        silence=silence,
        session=session,
        restart=restart,
    )
    chosen.check(worker=name, capacity=capacity)
    options.logs_to_stderr()
    settings = options.settings()
    worker_options = replace(
        chosen.worker(settings, name, agent=agent, models=tuple(model or ()), account=account),
        capacity=capacity,
        intake=intake,
        take_over=take_over,
        keeper=keeper,
    )
    runs.sweep_left_behind(settings.data_dir)
    with one_error(), runs.recorded(settings.data_dir):
        loop.run(_serve, settings, worker_options, until_stdin_closes)


async def _serve(
    settings: Settings, worker_options: WorkerOptions, until_stdin_closes: bool
) -> None:
    client = Client(resolve_url(settings), Keys(settings.namespace).log)
    stop = anyio.Event()
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(stop_at_signals, stop, tasks.cancel_scope.cancel)
            if until_stdin_closes:
                when_stdin_closes(tasks.cancel_scope.cancel)
            else:
                note(f"worker {worker_options.name} on {redacted(client.url)}; Ctrl-C stops")
            await serve(worker_options, Keys(settings.namespace), client, stop=stop)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


def pause(
    workers: Annotated[list[str], typer.Argument(help="Workers that get no new tasks.")],
    reason: Annotated[str, typer.Option(help="Why, for those who wonder.")] = "",
) -> None:
    """Give workers no new tasks; what they run goes on."""
    _tell("worker.paused", workers, reason, "is paused: no new tasks; what it runs goes on")


def resume(
    workers: Annotated[list[str], typer.Argument(help="Workers that get tasks again.")],
) -> None:
    """Give paused workers tasks again."""
    _tell("worker.resumed", workers, "", "gets tasks again")


def _tell(kind: str, workers: list[str], reason: str, outcome: str) -> None:
    with options.opened() as bus:
        state = bus.state()
        unknown = [name for name in workers if name not in state.workers]
        if unknown:
            raise Refused(
                f"no worker named {', '.join(unknown)} ever joined",
                hint="`asb status` lists them",
            )
        from services.client.follow import Answers  # a worker needs none of it

        answers = Answers(bus)
        for name in workers:
            if state.workers[name].paused == (kind == "worker.paused"):
                say(f"{name} {outcome} (as before)")  # of that the engine says nothing
                continue
            data: dict[str, object] = {"worker": name}
            if reason:
                data["reason"] = reason
            answers.expect(bus.send(kind, data), name)
        refused = answers.refused(note)
        for name in answers.events:
            say(f"{name} {outcome}")
        if refused:
            raise typer.Exit(1)
