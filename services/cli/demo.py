"""demo: a whole bus at work, in half a minute, on a machine with nothing but this program."""

from __future__ import annotations

import logging
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from events.keys import Keys
from projections.format import count, span
from services import assembly
from services.cli import options
from services.cli.demo_tasks import submissions
from services.cli.terminal import activation, note, say, width
from services.cli.typed import number
from services.client.bus import Bus
from services.client.submissions import Checker, Submission, send
from services.queries.figures import by_name, worker_word
from services.queries.status import prompts, running_texts
from services.running.bus import RunningBus, final_charge, hosted
from services.runtime import initial_policy, loop
from services.runtime.ending import one_error, stop_at_signals
from services.runtime.errors import Refused
from services.runtime.settings import Settings
from services.screens.status import status_screen, symbol
from services.screens.text import clip, pad
from services.store import embedded
from services.store.client import Client, SyncClient
from services.worker import Driver, WorkerOptions, serve
from services.worker.drivers.command import CommandDriver
from services.worker.drivers.simulated import SimulatedDriver

MARK = "made-by-asb-demo"
FRAME_S = 0.1
BAR = 30


def demo(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD…]", help="Your agent, instead of the simulated one."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=100, help="Workers.")] = 3,
    tasks: Annotated[int, typer.Option(min=4, max=10_000, help="Tasks.")] = 40,
    speed: Annotated[
        float,
        typer.Option(
            callback=number, min=0.1, max=1000, help="How fast the simulated agent pretends."
        ),
    ] = 1.0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on with the last demo's data.")] = False,
) -> None:
    """See it at work: a bus of its own, three workers, forty tasks, and the screens at the end.

    The agent is simulated (it waits, reports invented usage, and sometimes fails) unless you name
    a command after --, which gets each prompt on its standard input.
    """
    options.logs_to_stderr(logging.WARNING)
    settings = options.settings(redis_url="")
    folder = _folder(settings.data_dir / "demo", keep)
    chosen = settings.embedded
    with embedded.start(folder, chosen.port, chosen.appendfsync, chosen.server) as server:
        note(f"Redis {server.url} (embedded, append-only), data in {_short(folder)}")
        driver = "your command" if command else "a SIMULATED agent: its work and usage are invented"
        note(f"{count(workers, 'worker')}, each running {driver}")
        done, shown = loop.run(
            _run, settings, server.url, list(command or []), workers, tasks, speed
        )
    if not command:
        note("The figures are true sums over the log; the work and its usage were simulated.")
    note(next_steps(_short(folder)))
    say(shown)
    if not done:
        raise typer.Exit(1)


def _folder(folder: Path, keep: bool) -> Path:
    """The demo's own data folder, empty unless ``keep``; only what a demo made is removed."""
    if embedded.address_of(folder) is not None:
        raise Refused(
            f"a bus is running on {folder}", hint="stop it first, or name another --data-dir"
        )
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise Refused(
                f"{folder} was not made by a demo, so it is left alone",
                hint="name another --data-dir",
            )
        if not keep:
            shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MARK).touch()
    return folder


async def _run(
    settings: Settings, url: str, command: list[str], workers: int, tasks: int, speed: float
) -> tuple[bool, str]:
    """Run it all; whether every task ended (not where it was stopped before), and the screen."""
    done, shown = False, ""
    with one_error():
        async with hosted(settings, url, assembly.SERVICES) as running:
            client = Client(url)
            workers_stop = anyio.Event()
            try:
                async with anyio.create_task_group() as group:
                    await group.start(stop_at_signals, running.stop, group.cancel_scope.cancel)
                    async with anyio.create_task_group() as group_of_workers:
                        for number in range(1, workers + 1):
                            options = _options(settings, number, _driver(command, speed))
                            keys = Keys(settings.namespace)
                            group_of_workers.start_soon(_serve, options, keys, client, workers_stop)
                        show = Show(running)
                        show.titles = await anyio.to_thread.run_sync(_submit, settings, url, tasks)
                        done = await _watch(show)
                        # While the workers are still there: that is what was at work.
                        shown = await anyio.to_thread.run_sync(_screens, settings, url)
                        workers_stop.set()
                    await final_charge(running.host)
                    group.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await client.close()
    return done, shown


async def _serve(options: WorkerOptions, keys: Keys, client: Client, stop: anyio.Event) -> None:
    await serve(options, keys, client, stop=stop)


def _driver(command: list[str], speed: float) -> Driver:
    if command:
        return CommandDriver(command)
    return SimulatedDriver(speed=speed)


def _options(settings: Settings, number: int, driver: Driver) -> WorkerOptions:
    return WorkerOptions(
        name=f"concurrent_worker{number}",
        driver=driver,
        lease_s=settings.tasks.lease_s,
        heartbeat_s=settings.tasks.heartbeat_s,
        grace_s=1.0,
    )


def _submit(settings: Settings, url: str, tasks: int) -> dict[str, str]:
    """Submit the demo's tasks; task id → what it is about, for each that must end."""
    wanted = submissions(tasks)
    checker = Checker({}, initial_policy.defaults(settings))
    lines = [msgspec.json.encode(item) for item in wanted]
    good = [item for item in checker.lines(lines) if isinstance(item, Submission)]
    sent = [good[0], *good]  # the first one twice: the same id with the same content
    bus = Bus(settings, SyncClient(url), Keys(settings.namespace))
    try:
        entries = list(send(bus, sent))
    finally:
        bus.client.close()
    note(f"submitted {len(good):,} tasks, one of them twice, which changes nothing")
    ids = [item.task or entry for item, entry in zip(sent, entries, strict=True)]
    return dict(zip(ids[1:], (item["text"] for item in wanted), strict=True))


# -- what a person sees meanwhile ------------------------------------------------------------------


class Show(msgspec.Struct):
    """What the progress is drawn from; ``titles`` names the tasks that must end."""

    running: RunningBus
    titles: dict[str, str] = {}


async def _watch(show: Show) -> bool:
    """Show progress until all have ended; False when stopped before."""
    console = Console(stderr=True)
    began, expected = anyio.current_time(), len(show.titles)
    said = 0
    live = Live(console=console, transient=True, auto_refresh=False, redirect_stdout=False)
    if console.is_terminal:
        live.start()
    try:
        while not show.running.stop.is_set():
            outcomes = show.running.host.state.outcomes
            ended = sum(task in outcomes for task in show.titles)
            line = _progress(show, ended, int((anyio.current_time() - began) * 1_000_000))
            if console.is_terminal:
                live.update(Text(_frame(show, ended, line), no_wrap=True), refresh=True)
            elif ended >= min(expected, said + max(1, expected // 10)):
                said = ended
                note(line)
            if ended >= expected:
                return True
            await anyio.sleep(FRAME_S)
    finally:
        live.stop()
    return False


def _progress(show: Show, ended: int, elapsed: int) -> str:
    failed = show.running.host.state.meta.failed
    after = f", {failed} failed" if failed else ""
    return f"{ended} of {len(show.titles)} ended after {span(elapsed)}{after}"


def _frame(show: Show, ended: int, line: str) -> str:
    state = show.running.host.state
    full = BAR * ended // max(1, len(show.titles))
    lines = [f"{'━' * full}{'╌' * (BAR - full)}  {line}"]
    for worker in by_name(state):
        first = next(iter(worker.running), "")
        lines.append(
            f"  {pad(worker.name, 20)} {symbol(worker)} {worker_word(worker):<8}"
            f" | Done: {worker.completed:>2} | Task: {show.titles.get(first) or 'None'}"
        )
    return "\n".join(lines)


def _screens(settings: Settings, url: str) -> str:
    """The status screen, from the log, while the workers are still there."""
    bus = Bus(settings, SyncClient(url), Keys(settings.namespace))
    try:
        state, now = bus.state(), bus.now()
        texts = prompts(bus, running_texts(state))
    finally:
        bus.client.close()
    lines = status_screen(state, now, texts).splitlines()
    return "\n".join(clip(line, width()) for line in lines)


def _short(folder: Path) -> str:
    """A folder as it can be pasted into a shell, short where it lies at home."""
    home = Path.home()
    if folder.is_relative_to(home) and " " not in str(folder):
        return f"~/{folder.relative_to(home)}"
    return shlex.quote(str(folder))


def next_steps(folder: str) -> str:
    """What to type after the demo; every line can be pasted."""
    first = "".join(f"  {line}\n" for line in activation())
    return (
        "Try next, line by line (any command is an agent, sh as well; --driver claude, codex\n"
        f"or gemini runs yours):\n{first}"
        "  asb up --workers 3 -- sh -c 'sleep 2; tr a-z A-Z'\n"
        f"and in another terminal:\n{first}"
        '  asb submit "Write documentation for the API" --wait\n'
        "  asb status\n"
        f"The demo's own bus again: asb --data-dir {folder} up\n"
    )
