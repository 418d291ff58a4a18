"""up, service: a bus, or a part of one, until it is told to stop."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
from collections.abc import Callable, Collection, Sequence
from typing import Annotated

import typer

from events.keys import Keys
from events.worker import WorkerHeartbeat
from projections.records import ALIVE
from projections.state import State
from services import assembly
from services.cli import options
from services.cli.drivers import (
    Chosen,
    DriverName,
    Folder,
    Isolated,
    Output,
    Permissions,
    Restart,
    Silence,
    Worktree,
)
from services.cli.terminal import activation, note
from services.queries.figures import names_text
from services.queries.stalled import not_at_work
from services.running.bus import Companions, Hired, run_bus
from services.running.children import WorkerSpec
from services.runtime import loop
from services.runtime.errors import AsbError
from services.runtime.settings import Settings
from services.runtime.urls import redacted, redis_cli
from services.store import embedded
from services.store.client import SyncClient
from services.store.embedded import Embedded, resolve_url
from services.store.heartbeat import beats, host_name
from services.worker.drivers.table import AGENTS
from services.worker.identity import death_of
from services.worker.process import runs

EVERY = ", ".join((assembly.ENGINE, *assembly.STARTABLE))


def up(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD…]",
            help="What the workers run, the prompt on stdin; more arguments for an agent.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Workers to run, worker1, worker2, …; with --driver or CMD.")
    ] = 0,
    driver: DriverName = None,
    output: Output = "text",
    permissions: Permissions = None,
    cwd: Folder = None,
    worktree: Worktree = None,
    isolated: Isolated = False,
    silence: Silence = None,
    restart: Restart = False,
    capacity: Annotated[int, typer.Option(min=1, help="Tasks each worker runs at once.")] = 1,
    port: Annotated[int | None, typer.Option(help="Port of the embedded Redis.")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Program of the embedded Redis: redis-server or valkey-server."),
    ] = None,
) -> None:
    """Run a bus until Ctrl-C: an embedded Redis (unless --redis), all services, workers.

    A second start resumes: nothing is lost, nothing done twice. Where a bus runs already it joins
    in, and its workers take names that are free.
    """
    chosen_driver = Chosen(
        driver=driver,
        words=tuple(command or ()),
        output=output,
        permissions=permissions,
        cwd=cwd,
        worktree=worktree,
        isolated=isolated,
        silence=silence,
        restart=restart,
    )
    _check_workers(chosen_driver, workers, capacity)
    options.logs_to_stderr()
    settings = options.settings(**{"embedded.port": port, "embedded.server": server})
    if workers:
        chosen_driver.prepare(settings)
    do = (f"--capacity={capacity}", *chosen_driver.arguments())

    def hired(taken: Collection[str]) -> list[WorkerSpec]:
        return [WorkerSpec(name, do) for name in _names(workers, taken)]

    run_up(settings, hired, {"--port": port, "--server": server})


def run_up(
    settings: Settings,
    hired: Callable[[Collection[str]], list[WorkerSpec]],
    for_a_start: dict[str, object],
) -> None:
    """A bus with workers until it is told to stop: those ``hired``, by the names that are taken.
    ``for_a_start``: options of the embedded Redis, which is not always ours to start."""
    runs.sweep_left_behind(settings.data_dir)
    url = settings.redis_url
    if url is not None:
        _run(settings, url, lambda state: hired(_taken(state, settings, url, "")), None)
        return
    chosen = settings.embedded
    with embedded.start(
        settings.data_dir, chosen.port, chosen.appendfsync, chosen.server
    ) as running:
        if not running.owned:
            _say_joined(running, for_a_start)
        elif (port := for_a_start.get("--port")) and f":{port}/" not in running.url:
            note(f"port {port} is taken, so Redis listens on {redacted(running.url)}")
        keeper = _keeper(running)

        def kept(state: State) -> list[WorkerSpec]:
            specs = hired(_taken(state, settings, running.url, keeper))
            return [WorkerSpec(s.name, (f"--keeper={keeper}", *s.arguments)) for s in specs]

        _run(settings, running.url, kept, running)
    note("stopped")


def _run(settings: Settings, url: str, hired: Hired, server: Embedded | None) -> None:
    wanted = {
        "exporter": settings.metrics.enabled,
        "web": settings.web.enabled,
        "traces": bool(settings.traces.endpoint),
        "shares": bool(settings.shares),
    }
    readers = [name for name, enabled in wanted.items() if enabled]
    loop.run(
        lambda: run_bus(
            settings,
            url,
            assembly.SERVICES,
            note,
            Companions(hired, readers, options.arguments(), server),
            banner=lambda specs: _banner(settings, url, specs, server),
        )
    )


def _check_workers(chosen: Chosen, workers: int, capacity: int) -> None:
    """What the workers shall run is checked before anything is started for them."""
    chosen.check(capacity=capacity)
    if chosen.words and not workers:
        raise typer.BadParameter(
            f"a command without workers: --workers 3 -- {' '.join(chosen.words)}"
        )
    if workers and not chosen.words and not chosen.is_agent:
        raise typer.BadParameter(
            "--workers needs what they shall run: --workers 3 --driver claude (or codex, gemini), "
            "or --workers 3 -- my-agent (nothing is simulated unasked; `asb demo` shows a bus at "
            "work)"
        )


def _say_joined(server: Embedded, options: dict[str, object]) -> None:
    """Say that another process' Redis is used. ``options`` are for one that is started, and are
    ignored."""
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    ignored = f"; {' and '.join(given)} ignored" if given else ""
    note(f"joins the Redis that runs already at {redacted(server.url)}{ignored}")


def _keeper(server: Embedded) -> str:
    """How our workers' heartbeats name us: the lock of the data folder, where we hold it, and a
    nonce. Whoever holds that lock later knows that we are gone."""
    if not server.owned:
        return ""
    lock = (server.data_dir / "owner.lock").stat()
    return f"{lock.st_dev:x}-{lock.st_ino:x}.{secrets.token_hex(4)}"


def _taken(state: State, settings: Settings, url: str, keeper: str) -> set[str]:
    """The names of living workers. A crashed one's is free at once."""
    keys = Keys(settings.namespace)
    alive = [worker for worker in state.workers.values() if worker.status == ALIVE]
    with contextlib.closing(SyncClient(url)) as client:
        values = client.pipeline(("GET", keys.worker(worker.name)) for worker in alive)
    return {
        worker.name
        for worker, value in zip(alive, values, strict=True)
        if not worker.heartbeat
        or (isinstance(value, bytes) and not death_of(WorkerHeartbeat.read(value), keeper))
    }


def _names(number: int, taken: Collection[str]) -> list[str]:
    """Names for our workers; says so where they are not the first ones."""
    names = free_names(number, taken)
    if clash := [name for name in free_names(number, set()) if name in taken]:
        note(f"at work already: {', '.join(clash)}; new ones: {', '.join(names)}")
    return names


def free_names(number: int, taken: Collection[str]) -> list[str]:
    """worker1, worker2, …: so many that are not ``taken``."""
    every = (f"worker{n}" for n in itertools.count(1))
    return list(itertools.islice((name for name in every if name not in taken), number))


def service(
    names: Annotated[
        list[str],
        typer.Argument(
            help=f"engine (the deciders as one), or any of {', '.join(assembly.STARTABLE)}."
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Start nothing: are they at work on this host?")
    ] = False,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Run some services alone, beside others on the same bus. Two of the same may run."""
    if name := assembly.unknown(names):
        raise typer.BadParameter(f"{name} is none of {EVERY}")
    if check:
        with options.opened() as bus:
            running = beats(bus.client, bus.keys)
        if problem := not_at_work(running, names, host_name()):
            raise AsbError(problem, hint="what holds it up stands on its standard error")
        return
    options.logs_to_stderr()
    settings = options.settings()
    runs.sweep_left_behind(settings.data_dir)
    url = resolve_url(settings)
    chosen = tuple(dict.fromkeys(names))
    say = f"{', '.join(chosen)} on {redacted(url)}; Ctrl-C stops"
    if until_stdin_closes:
        say = ""
    loop.run(
        lambda: run_bus(settings, url, chosen, note, banner=lambda _: say, owned=until_stdin_closes)
    )


def example() -> str:
    """What a first worker could run: an agent that is installed here, else a stand-in's name."""
    installed = next((name for name in AGENTS if shutil.which(name)), "")
    return f"--driver {installed}" if installed else "-- my-agent"


def _banner(
    settings: Settings, url: str, specs: Sequence[WorkerSpec], server: Embedded | None
) -> str:
    which = "  (embedded)" if server is not None else ""
    if server is not None and not server.owned:
        which = "  (embedded, started by another process: it lives as long as that one)"
    lines = [
        "asb is up",
        f"  Redis     {redacted(url)}{which}",
        f"  By hand   {redis_cli(url)}",
        f"  Data      {server.data_dir}" if server is not None else "  Data      in that Redis",
        f"  Services  {len(assembly.SERVICES)}, all of them (asb doctor says how each fares)",
        f"  Workers   {names_text([spec.name for spec in specs], 5) or 'none yet'}",
    ]
    first = [] if specs else [f"asb worker w1 {example()}"]
    tasks = ['asb submit "Write documentation for the API"', "asb status --watch"]
    try_next = [*activation(), *first, *tasks]
    extra = options.for_another_terminal()
    return "\n".join(
        [
            *lines,
            "Try next, in another terminal:",
            *(f"  {line.replace('asb ', f'asb{extra} ', 1)}" for line in try_next),
            "Ctrl-C stops it; the same command again goes on where this one ended.",
        ]
    )
