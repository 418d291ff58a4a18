"""manager: the seed's prompt."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Annotated

import anyio
import typer

from projections.format import count
from projections.records import ALIVE
from services.cli import options
from services.cli.terminal import activation, note, say
from services.client.bus import Bus, opened
from services.client.follow import Follower
from services.concurrent_task_manager import WORKERS, ConcurrentTaskManager
from services.queries.stalled import Stalled
from services.running.bus import bus_beside
from services.running.children import ChildProcess, WorkerSpec, workers_beside
from services.runtime.errors import AsbError, RedisUnavailable, Refused
from services.runtime.settings import Settings
from services.worker.tmux import server

AUTO_S = 10
ALONE_S = 10.0  # how long tasks wait here for a first worker
GIVE_WORKERS = """\
  asb up --workers 3 -- ./my-agent.sh             # three, which run your command
  asb worker concurrent_worker1 -- ./my-agent.sh  # or one, on a bus that runs"""
HELP = """\
add TEXT     submit a task
status       queue, totals, throttle, workers
metrics      tokens and cost in detail
throttle     limits and levels
distribute   what has moved since the last look (the bus dispatches by itself)
auto         distribute every 10 seconds, until Ctrl-C
quit         leave; a bus that this command started ends with it, any other goes on"""


def manager(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks to add; without any, a prompt.")
    ] = None,
) -> None:
    """Do tasks and show the status screen; without tasks the task manager's prompt.

    Where no bus runs it starts one, which lives as long as the command; what was added stays in
    its data folder. Agents in the tmux sessions concurrent_worker1, 2 and 3 do tasks
    meanwhile. With tasks it ends when all of them have ended (exit code 1 when one failed),
    or after 10 s without a worker: the tasks wait for one.
    """
    settings = options.settings()
    with bus_beside(settings, note), _in_tmux(settings) as workers:
        manager = ConcurrentTaskManager(settings=settings)
        try:
            if tasks:
                _batch(manager, tasks, settings, workers)
            else:
                _prompt(manager)
        finally:
            manager.close()


@contextlib.contextmanager
def _in_tmux(settings: Settings) -> Generator[list[ChildProcess]]:
    """Workers for the seed's tmux sessions, where they are there and nobody works in them."""
    there = anyio.run(server.sessions) & set(WORKERS)
    with opened(settings) as bus:
        alive = {w.name for w in bus.state().workers.values() if w.status == ALIVE}
    names = sorted(there - alive)
    if names:
        note(f"agents in tmux take tasks: {', '.join(names)}")
    # The sessions are a person's: their agents stay in the folder that they were started in.
    theirs = ("--driver=tmux", "--no-worktree")
    specs = [WorkerSpec(name, (*theirs, f"--session={name}")) for name in names]
    with workers_beside(specs, options.arguments(), note) as processes:
        yield processes


def _batch(
    manager: ConcurrentTaskManager,
    tasks: list[str],
    settings: Settings,
    workers: Sequence[ChildProcess],
) -> None:
    """Add the tasks and wait for their ends."""
    with opened(settings) as bus:
        attended = _Attended(bus, workers)
        follower = Follower(bus, attended.look, quiet_s=1.0)
        for text in tasks:
            task = manager.add_task(text)
            follower.expect(task, task)
            say(f"{task}  {text}")
        sys.stdout.flush()
        failed, gave_up = 0, False
        try:
            for ended in follower.ends():
                failed += not ended.good
        except NobodyWorks:
            gave_up = True
    say()
    say(manager.status())
    if gave_up:
        raise Refused(
            f"no worker took them within {ALONE_S:.0f} s; the tasks stay and wait for one",
            hint="asb up --workers 3 -- ./my-agent.sh gives them three",
        )
    if failed:
        note(f"error: {count(failed, 'task')} failed\nhint: `asb tasks --failed` says why")
        raise typer.Exit(1)


class NobodyWorks(Exception):
    """No worker has come within the time that is waited for one."""


class _Attended:
    """Looks, while nothing is heard of the tasks, whether anybody is there to do them."""

    def __init__(self, bus: Bus, beside: Sequence[ChildProcess]) -> None:
        self._beside = beside
        self._bus, self._began = bus, time.monotonic()
        self._stalled, self._warned = Stalled(bus, note), False

    def look(self, tasks: Collection[str]) -> None:
        workers = self._bus.state().workers.values()
        if any(worker.status == ALIVE for worker in workers):
            self._stalled.look(tasks)
            return
        if any(process.running for process in self._beside):
            return  # an agent is about to be ready
        if not self._warned:
            first = "".join(f"  {line}\n" for line in activation())
            note(f"No worker is there. In another terminal:\n{first}{GIVE_WORKERS}")
            self._warned = True
        if time.monotonic() - self._began >= ALONE_S:
            raise NobodyWorks


def _prompt(manager: ConcurrentTaskManager) -> None:
    commands: dict[str, Callable[[], object]] = {
        "status": manager.status,
        "metrics": manager.metrics,
        "throttle": manager.throttle,
        "distribute": manager.distribute_tasks,
        "help": lambda: HELP,
    }
    person = sys.stdin.isatty()
    if person:
        note("add TEXT, status, metrics, throttle, distribute, auto, quit; help explains")
    while True:
        line = _read(person)
        if line is None or line in ("quit", "exit"):
            return
        word, _, rest = line.partition(" ")
        try:
            if word == "add":
                say(f"Added {manager.add_task(rest.strip())}")
            elif word == "auto":
                _auto(manager)
            elif word in commands:
                say(str(commands[word]()))
            elif word:
                note(f"{word}? one of add, {', '.join(commands)}, auto, quit")
        except RedisUnavailable:
            raise
        except AsbError as error:
            note(f"error: {error}")
        sys.stdout.flush()


def _read(person: bool) -> str | None:
    """The next line, None at the end of the input."""
    if person:
        sys.stderr.write("> ")
        sys.stderr.flush()
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    return line.strip() if line else None


def _auto(manager: ConcurrentTaskManager) -> None:
    note(f"every {AUTO_S} s; Ctrl-C ends it")
    try:
        while True:
            say(str(manager.distribute_tasks()))
            sys.stdout.flush()
            time.sleep(AUTO_S)
    except KeyboardInterrupt:
        note("")
