"""A host, its Redis and what runs beside it, from start to clean stop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence

import anyio
import anyio.to_thread
import msgspec
from anyio.from_thread import start_blocking_portal

from events.keys import Keys
from projections.state import State
from services import hosting
from services.assembly import SERVICES
from services.engine.host import Host
from services.running.children import (
    CHECK_S,
    ChildProcess,
    Say,
    WorkerSpec,
    reader_process,
    worker_process,
)
from services.runtime.ending import one_error, stop_at_signals, when_stdin_closes
from services.runtime.errors import AsbError
from services.runtime.settings import Settings
from services.store.client import Client
from services.store.embedded import Embedded, address_of, start
from services.store.health import check_server

READER_S = 3.0  # how long a stopping bus waits for its readers
QUIET_S = 15.0  # how long a stopping bus waits for its workers' last reports


Hired = Callable[[State], Sequence[WorkerSpec]]  # the workers to run, by what is known of others


def nobody(_state: State) -> Sequence[WorkerSpec]:
    """A bus without workers of its own."""
    return ()


class Companions(msgspec.Struct, frozen=True):
    """What runs beside the host, in processes of its own. ``options``: how each of them is given
    this bus. ``embedded``: the server that is revived when it dies, where it is ours."""

    hired: Hired = nobody
    readers: Sequence[str] = ()
    options: Sequence[str] = ()
    embedded: Embedded | None = None


ALONE = Companions()


class RunningBus(msgspec.Struct):
    """What runs: for those who show it."""

    host: Host
    stop: anyio.Event


async def run_bus(
    settings: Settings,
    url: str,
    services: Collection[str],
    say: Say,
    beside: Companions = ALONE,
    *,
    banner: Callable[[Sequence[WorkerSpec]], str] = lambda _: "",
    owned: bool = False,
) -> None:
    """Run ``services``, and what is ``beside`` them, until SIGINT or SIGTERM; then stop in order.
    ``banner`` is said once all is up. ``owned``: the end of our standard input ends us, too.

    A second signal does not wait for running tasks. Raises AsbError where it cannot go on.
    """
    specs: list[WorkerSpec] = []
    workers: list[ChildProcess] = []
    readers = [reader_process(name, beside.options, say) for name in beside.readers]

    def hire(state: State) -> None:
        specs.extend(beside.hired(state))
        workers.extend(worker_process(spec, beside.options, say) for spec in specs)
        _start(workers)

    try:
        with one_error():
            async with (
                hosted(settings, url, services, hire) as running,
                anyio.create_task_group() as tasks,
            ):
                await tasks.start(stop_at_signals, running.stop, lambda: _kill(workers))
                if beside.embedded is not None and beside.embedded.owned:
                    tasks.start_soon(_revive, beside.embedded, url, running.stop, say)
                if owned:
                    when_stdin_closes(running.stop.set)
                if workers or readers:
                    tasks.start_soon(_look_after, [*workers, *readers], running.stop)
                if text := banner(specs):
                    say(text)
                await running.stop.wait()
                await _stop_workers(workers, say)
                await final_charge(running.host)
                await _end_readers(readers)
                tasks.cancel_scope.cancel()
    finally:
        _kill([*workers, *readers])


@contextlib.asynccontextmanager
async def hosted(
    settings: Settings,
    url: str,
    services: Collection[str],
    hire: Callable[[State], object] = nobody,
) -> AsyncGenerator[RunningBus]:
    """A host for ``services``, folded and ready; it ends with the block. ``hire`` is called with
    what it has folded, before its first turn."""
    client = Client(url, Keys(settings.namespace).log)
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
def bus_beside(settings: Settings, say: Say) -> Generator[None]:
    """A bus of our own, for as long as the block lasts, where no other is to be used."""
    if settings.redis_url is not None or address_of(settings.data_dir) is not None:
        yield
        return
    given = settings.embedded
    with start(settings.data_dir, given.port, given.appendfsync, given.server) as server:
        say(f"no bus runs: this one does until it ends, on {server.url}, data in {server.data_dir}")
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


async def _stop_workers(processes: Sequence[ChildProcess], say: Say) -> None:
    if any(process.running for process in processes):
        say("stopping: running tasks get 10 s (Ctrl-C again: none)")
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


async def _revive(embedded: Embedded, url: str, stop: anyio.Event, say: Say) -> None:
    """Start the embedded Redis again when it died; the host finds it where it was."""
    while not stop.is_set():
        if not embedded.alive():
            say("the embedded Redis died; starting it again")
            await anyio.to_thread.run_sync(embedded.revive)
            if embedded.url != url:
                raise AsbError(
                    f"the embedded Redis had to move from {url} to {embedded.url}",
                    hint="start again: everything acknowledged is on disk",
                )
        with anyio.move_on_after(CHECK_S):
            await stop.wait()
