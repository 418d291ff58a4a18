"""A host, its Redis and its workers, from start to clean stop.

Workers run in processes of their own: what an agent's output costs to read never delays the engine,
a second core is used, and the death of one is nobody else's. Each holds the read end of a pipe
from here, so that none outlives us, whatever ends us.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence

import anyio
import anyio.to_thread
import msgspec
from anyio.from_thread import start_blocking_portal

from projections.state import State
from services import hosting
from services.assembly import SERVICES
from services.cli import options
from services.cli.terminal import note
from services.engine.host import Host
from services.runtime import own_process
from services.runtime.ending import one_error, stop_at_signals, when_stdin_closes
from services.runtime.errors import AsbError
from services.runtime.settings import Settings
from services.store.client import Client
from services.store.embedded import Embedded, address_of, start
from services.store.health import check_server

CHECK_S = 0.3  # how often the embedded Redis and the workers are looked after
READER_S = 3.0  # how long a stopping bus waits for its readers
QUIET_S = 15.0  # how long a stopping bus waits for its workers' last reports
RESTART_S = (1.0, 30.0)  # first and longest pause before a worker that ended is started again
FAILED_QUICKLY_S = 3.0
OWNED = "--until-stdin-closes"  # we hold the other end: the death of us closes it


class WorkerSpec(msgspec.Struct, frozen=True):
    """A worker to run in a process of its own: its name and the rest of its command line."""

    name: str
    arguments: tuple[str, ...]


Hired = Callable[[State], Sequence[WorkerSpec]]  # the workers to run, by what is known of others


def nobody(_state: State) -> Sequence[WorkerSpec]:
    """A bus without workers of its own."""
    return ()


class ChildProcess:
    """A process of ours beside the bus: a worker, or a reader. Started again when it ends by
    itself. ``label`` names it to people, ``arguments`` are its command line."""

    def __init__(self, label: str, *arguments: str) -> None:
        self.label, self._arguments = label, arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = RESTART_S[0]
        self._next = 0.0

    def look_after(self, now: float) -> None:
        """Start it if it does not run and its pause is over."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._close()
            quickly = now - self._started < FAILED_QUICKLY_S
            self._pause = min(2 * self._pause, RESTART_S[1]) if quickly else RESTART_S[0]
            self._next = now + self._pause
            note(f"{self.label} ended with {code}; again in {self._pause:.0f} s")
        if now >= self._next:
            self._started = now
            self._process = subprocess.Popen(
                own_process.command("services.cli.main", *self._arguments),
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us; we stop the others in order
            )

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """The end without grace; its supervisors end what it started."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def worker_process(spec: WorkerSpec) -> ChildProcess:
    """A worker of this bus; it ends with us."""
    given = (OWNED, *options.arguments(), *spec.arguments)
    return ChildProcess(f"worker {spec.name}", "worker", spec.name, *given)


def reader_process(name: str) -> ChildProcess:
    """A reader of this bus in a process of its own, off the engine's loop; it ends with us."""
    return ChildProcess(f"the {name}", "service", name, OWNED, *options.arguments())


class RunningBus(msgspec.Struct):
    """What runs: for those who show it."""

    host: Host
    stop: anyio.Event


async def run_bus(
    settings: Settings,
    url: str,
    services: Collection[str],
    *,
    embedded: Embedded | None = None,
    hired: Hired = nobody,
    readers: Sequence[str] = (),
    banner: Callable[[Sequence[WorkerSpec]], str] = lambda _: "",
    owned: bool = False,
) -> None:
    """Run ``services`` (and the ``hired``, and ``readers``) until SIGINT or SIGTERM; then stop in
    order. ``owned``: the end of our standard input ends us, too.

    A second signal does not wait for running tasks. Raises AsbError where it cannot go on.
    """
    specs: list[WorkerSpec] = []
    processes: list[ChildProcess] = []
    beside = [reader_process(name) for name in readers]

    def hire(state: State) -> None:
        specs.extend(hired(state))
        processes.extend(worker_process(spec) for spec in specs)
        _start(processes)

    try:
        with one_error():
            async with (
                hosted(settings, url, services, hire) as running,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(stop_at_signals, running.stop, lambda: _kill(processes))
                if embedded is not None and embedded.owned:
                    tasks.start_soon(_revive, embedded, url, running.stop)
                if owned:
                    when_stdin_closes(running.stop.set)
                if processes or beside:
                    tasks.start_soon(_look_after, [*processes, *beside], running.stop)
                if say := banner(specs):
                    note(say)
                await running.stop.wait()
                await _stop_workers(processes)
                await final_charge(running.host)
                await _end_readers(beside)
                tasks.cancel_scope.cancel()
    finally:
        _kill([*processes, *beside])


@contextlib.asynccontextmanager
async def hosted(
    settings: Settings,
    url: str,
    services: Collection[str],
    hire: Callable[[State], object] = nobody,
) -> AsyncGenerator[RunningBus]:
    """A host for ``services``, folded and ready; it ends with the block. ``hire`` is called with
    what it has folded, before its first turn."""
    client = Client(url)
    try:
        await check_server(client)
        running = RunningBus(hosting.host(client, settings, services), anyio.Event())
        running.host.begin()
        hire(running.host.state)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.host.run)
            await running.host.ready.wait()
            yield running
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


@contextlib.contextmanager
def bus_beside(settings: Settings) -> Generator[None]:
    """A bus of our own, for as long as the block lasts, where no other is to be used."""
    if settings.redis_url is not None or address_of(settings.data_dir) is not None:
        yield
        return
    given = settings.embedded
    with start(settings.data_dir, given.port, given.appendfsync, given.server) as server:
        note(
            f"no bus runs: this one does until it ends, on {server.url}, data in {server.data_dir}"
        )
        run = hosted(settings, server.url, SERVICES)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(run):
            yield


async def final_charge(host: Host) -> None:
    """Wait until the engine has taken in what stands at its intakes, and is between two turns."""
    with anyio.move_on_after(2.0):
        quiet = 0
        while quiet < 5:
            await anyio.sleep(0.02)
            quiet = quiet + 1 if len(host.intakes) == 0 and not host.state.ahead else 0


def _start(processes: Sequence[ChildProcess]) -> None:
    """At once, not when they are looked after: a worker takes a while until it can join."""
    for process in processes:
        process.look_after(anyio.current_time())


def _kill(processes: Sequence[ChildProcess]) -> None:
    for process in processes:
        process.kill()


async def _end_readers(processes: Sequence[ChildProcess]) -> None:
    """Readers have nothing to finish; their heartbeats end with them."""
    for process in processes:
        process.ask_to_stop()
    with anyio.move_on_after(READER_S):
        while any(process.running for process in processes):  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.02)


async def _stop_workers(processes: Sequence[ChildProcess]) -> None:
    if any(process.running for process in processes):
        note("stopping: running tasks get 10 s (Ctrl-C again: none)")
    for process in processes:
        process.ask_to_stop()
    with anyio.move_on_after(QUIET_S):
        while any(process.running for process in processes):  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.05)


async def _look_after(processes: Sequence[ChildProcess], stop: anyio.Event) -> None:
    while not stop.is_set():
        for process in processes:
            process.look_after(anyio.current_time())
        with anyio.move_on_after(CHECK_S):
            await stop.wait()


async def _revive(embedded: Embedded, url: str, stop: anyio.Event) -> None:
    """Start the embedded Redis again when it died; the host finds it where it was."""
    while not stop.is_set():
        if not embedded.alive():
            note("the embedded Redis died; starting it again")
            await anyio.to_thread.run_sync(embedded.revive)
            if embedded.url != url:
                raise AsbError(
                    f"the embedded Redis had to move from {url} to {embedded.url}",
                    hint="start again: everything acknowledged is on disk",
                )
        with anyio.move_on_after(CHECK_S):
            await stop.wait()
