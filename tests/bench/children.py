"""The processes of a bus: ``python -m tests.bench.children ROLE URL NAMESPACE …``.

Each says ``ready`` on stdout and ends when its stdin ends, so none outlives the bench.
"""

from __future__ import annotations

import cProfile
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import msgspec

from events.keys import Keys
from services import hosting
from services.runtime import loop
from services.runtime.settings import Settings, load
from services.runtime.settings_around import ArchiveSettings
from services.store.client import Client
from services.worker import Task, worker
from tests.bench import reference

ARCHIVES = "ASB_TEST_BENCH_ARCHIVES"  # a folder: then the log is cut
KEPT = "ASB_TEST_BENCH_KEPT"  # entries of it, in that case
SEGMENTS = 4  # at least, of what is kept
NOT_BINDING = 100_000  # times the default amounts: every limit is looked at, none refuses

Stop = Callable[[], None]


def settings(namespace: str) -> Settings:
    """The defaults, with limits that are on and do not bind."""
    found = load(environ={"HOME": "/nonexistent"}, overrides={"namespace": namespace})
    limits = tuple(
        msgspec.structs.replace(limit, amount=limit.amount * NOT_BINDING)
        for limit in found.policy.limits
    )
    policy = msgspec.structs.replace(found.policy, limits=limits)
    archive = found.archive
    if folder := os.environ.get(ARCHIVES):
        kept = int(os.environ[KEPT])
        segment = min(archive.segment_events, kept // SEGMENTS)
        archive = ArchiveSettings(folder=Path(folder), keep_events=kept, segment_events=segment)
    return msgspec.structs.replace(found, policy=policy, archive=archive)


async def run_engine(url: str, namespace: str) -> None:
    """All services of ``asb service engine`` in this process."""
    host = hosting.host(Client(url), settings(namespace))
    async with anyio.create_task_group() as group:
        group.start_soon(_say_ready, host.ready)
        group.start_soon(_until_stdin_ends, group.cancel_scope.cancel)
        await host.run()


async def run_worker(url: str, namespace: str, capacity: int) -> None:
    """A worker that does nothing and, at its end, writes which task it began when."""
    begun: list[tuple[str, int]] = []

    @worker("w1", capacity=capacity)
    async def handle(task: Task) -> None:
        begun.append((task.id, time.monotonic_ns()))

    stop = anyio.Event()
    client = Client(url)
    async with anyio.create_task_group() as group:
        group.start_soon(_until_stdin_ends, stop.set)
        print("ready", flush=True)
        await handle.serve(client, Keys(namespace), stop=stop)
        group.cancel_scope.cancel()
    sys.stdout.buffer.write(msgspec.json.encode(begun) + b"\n")


async def run_reader(url: str) -> None:
    """The reader of the reference's hand-off."""
    async with anyio.create_task_group() as group:
        group.start_soon(_until_stdin_ends, group.cancel_scope.cancel)
        print("ready", flush=True)
        await reference.read_hand_offs(url, lambda line: print(line, flush=True))


async def _say_ready(ready: anyio.Event) -> None:
    await ready.wait()
    print("ready", flush=True)


async def _until_stdin_ends(stop: Stop) -> None:
    """Call ``stop`` once stdin ends. A thread of its own waits: nothing ticks on the loop."""
    ended = anyio.Event()
    token = anyio.lowlevel.current_token()

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
            pass
        anyio.from_thread.run_sync(ended.set, token=token)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    stop()


def _profiled(run: Callable[[], None], file: str) -> None:
    profile = cProfile.Profile()
    profile.runcall(run)
    profile.dump_stats(file)


def main(role: str, url: str, namespace: str, extra: str = "") -> None:
    def run(work: Callable[..., Awaitable[None]], *args: object) -> None:
        loop.run(work, *args)

    if role == "reader":
        run(run_reader, url)
    elif role == "worker":
        run(run_worker, url, namespace, int(extra))
    elif extra:
        _profiled(lambda: run(run_engine, url, namespace), extra)
    else:
        run(run_engine, url, namespace)


if __name__ == "__main__":
    main(*sys.argv[1:])
