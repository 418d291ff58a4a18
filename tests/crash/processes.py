"""Hosts, workers and submitters as real processes, each to be killed at any moment.

``python -m tests.crash.processes host|worker|submitter|snapshot URL NAMESPACE …``: see `Fleet`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from events.keys import Keys
from services import assembly, hosting
from services.archive.copying import Archive
from services.archive.retention import Retention, renew
from services.engine.host import Host
from services.runtime import loop
from services.runtime.errors import RedisUnavailable
from services.runtime.settings_around import ArchiveSettings
from services.runtime.settings_types import SnapshotSettings
from services.store import rebuild
from services.store.client import Client, SyncClient
from services.worker import Result, Task, Usage, WorkerOptions, serve
from services.worker.python import FunctionDriver
from tests.integration.test_engine_ground import limit, settings_for
from tests.wait import wait_blocking

ROOT = Path(__file__).parents[2]
LEASE_S = 3
CAPACITY = 20
SNAPSHOT_TAIL = 1_000
# Holds are about 1,000 tokens, usage is 10: the limit binds on what runs at once.
LIMITS = (limit("global", "tokens", "hour", 60_000),)
POISON_EVERY = 10


# -- the processes -------------------------------------------------------------------------------


def run_host(url: str, namespace: str, services: str, reported: str, archives: str) -> None:
    """A host. SIGUSR1 has it write where it stands to the file ``reported``. With a folder of
    ``archives`` the log is kept short."""
    loop.run(_host, url, namespace, services, Path(reported), archives)


async def _host(url: str, namespace: str, services: str, reported: Path, archives: str) -> None:
    chosen = services.split(",") if services else assembly.SERVICES
    settings = msgspec.structs.replace(
        settings_for(namespace, LIMITS, lease_s=LEASE_S),
        snapshots=SnapshotSettings(every_events=SNAPSHOT_TAIL),
        archive=kept_short(archives) if archives else ArchiveSettings(),
    )
    host = hosting.host(Client(url), settings, chosen)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell, host, reported)
    async with anyio.create_task_group() as group:
        group.start_soon(host.run)
        await host.ready.wait()
        _tell(host, reported)


def _tell(host: Host, reported: Path) -> None:
    where: dict[str, Any] = {"ahead": host.state.ahead, "log_id": host.state.meta.log_id}
    if not host.state.ahead:
        where["digest"] = host.state.digest()
    where["stats"] = host.stats
    fresh = reported.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(where))
    fresh.rename(reported)


def run_worker(url: str, namespace: str, name: str) -> None:
    loop.run(_worker, url, namespace, name)


async def _worker(url: str, namespace: str, name: str) -> None:
    options = WorkerOptions(
        name=name,
        driver=FunctionDriver(_some_milliseconds),
        capacity=CAPACITY,
        lease_s=LEASE_S,
        heartbeat_s=LEASE_S / 4,
        grace_s=0.1,
    )
    await serve(options, Keys(namespace), Client(url))


async def _some_milliseconds(task: Task) -> Result:
    with anyio.move_on_after(random.uniform(0, 0.1)):
        await anyio.sleep_forever()
    return Result("ok", Usage(input_tokens=6, output_tokens=4))


def run_submitter(url: str, namespace: str, name: str, allowed: str, acknowledged: str) -> None:
    """Submit one by one, as many as the file ``allowed`` says, for ever; a key stands in the file
    ``acknowledged`` once Redis has said yes."""
    client, intake = SyncClient(url), Keys(namespace).main_intake
    with Path(acknowledged).open("ab", buffering=0) as file:
        for n in itertools.count():
            wait_blocking(lambda n=n: n < int(Path(allowed).read_text()), within=3600)
            key = f"{name}-{n}"
            poison = n % POISON_EVERY == POISON_EVERY - 1
            data = msgspec.json.encode({"text": "" if poison else f"fix bug {key}", "key": key})
            command = ("XADD", intake, "*", "type", "task.submitted", "id", key, "data", data)
            wait_blocking(lambda command=command: _sent(client, command), within=60)
            file.write(f"{'poison' if poison else 'task'} {key}\n".encode())


def _sent(client: SyncClient, command: tuple[str | bytes, ...]) -> bool:
    try:
        client.call(*command)
    except RedisUnavailable:
        return False  # perhaps it was taken: the same key once more does no harm
    return True


# -- the fleet -----------------------------------------------------------------------------------


class Process:
    """One of them, with what it was started with."""

    def __init__(self, fleet: Fleet, kind: str, arguments: tuple[str, ...], die_at: str) -> None:
        environment = {**os.environ, "ASB_TEST_DIE_AT": die_at}
        command = [sys.executable, "-m", __name__, kind, fleet.url, fleet.namespace, *arguments]
        self.kind, self.arguments, self.die_at = kind, arguments, die_at
        self.log = fleet.folder / f"{kind}-{len(fleet.all)}.log"
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def code(self) -> int | None:
        return self._popen.poll()

    @property
    def died_at_its_point(self) -> bool:
        return bool(self.die_at) and self.code == -signal.SIGKILL

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill9(self) -> None:
        self._popen.kill()
        self._popen.wait(timeout=20)

    def said(self) -> str:
        """The end of what it said: for failures."""
        return self.log.read_text(errors="replace")[-2_000:]


class Fleet:
    """All processes of a test; none outlives it."""

    def __init__(
        self, url: str, namespace: str, folder: Path, archives: Path | None = None
    ) -> None:
        """With a folder of ``archives`` hosts keep the log short."""
        self.url, self.namespace, self.folder = url, namespace, folder
        self.archives = str(archives) if archives is not None else ""
        self.all: list[Process] = []
        self.allowed = 0
        self.allow(0)

    def allow(self, more: int) -> None:
        """Let every submitter submit so many more."""
        self.allowed += more
        fresh = self.folder / "allowed.new"
        fresh.write_text(str(self.allowed))
        fresh.rename(self.folder / "allowed")

    def _start(self, kind: str, *arguments: str, die_at: str = "") -> Process:
        process = Process(self, kind, arguments, die_at)
        self.all.append(process)
        return process

    def host(self, services: str = "", die_at: str = "") -> Process:
        reported = str(self.folder / f"told-{len(self.all)}")
        return self._start("host", services, reported, self.archives, die_at=die_at)

    def retention(self, die_at: str = "") -> Process:
        """What the archive service has a process do."""
        return self._start("retention", self.archives, die_at=die_at)

    def worker(self, name: str, die_at: str = "") -> Process:
        return self._start("worker", name, die_at=die_at)

    def submitter(self, name: str) -> Process:
        files = (str(self.folder / file) for file in ("allowed", f"acks-{name}"))
        return self._start("submitter", name, *files)

    def renewal(self, die_at: str = "") -> Process:
        """`asb archive --anew`."""
        return self._start("renewal", self.archives, die_at=die_at)

    def snapshot(self, die_at: str = "") -> Process:
        return self._start("snapshot", die_at=die_at)

    def again(self, process: Process, die_at: str = "") -> Process:
        """A new process in the place of one that ended."""
        if process.kind == "host":
            return self.host(process.arguments[0], die_at)
        return self._start(process.kind, *process.arguments, die_at=die_at)

    def acknowledged(self) -> Mapping[str, list[str]]:
        """Keys that Redis has acknowledged, tasks and poison."""
        found: dict[str, list[str]] = {"task": [], "poison": []}
        for file in self.folder.glob("acks-*"):
            for line in file.read_text().splitlines():
                what, key = line.split()
                found[what].append(key)
        return found

    def told_by(self, host: Process) -> dict[str, Any]:
        """Where a host stands: its log id, its digest (unless a turn is under way), its stats."""
        file = Path(host.arguments[1])
        file.unlink(missing_ok=True)
        host.signal(signal.SIGUSR1)
        wait_blocking(file.exists, within=20, what=f"a word from {host.kind}: {host.said()}")
        return msgspec.json.decode(file.read_bytes())

    def end(self) -> None:
        for process in self.all:
            if process.code is None:
                process.kill9()


def run_snapshot(url: str, namespace: str) -> None:
    rebuild.write_snapshot(SyncClient(url), Keys(namespace))


def kept_short(archives: str) -> ArchiveSettings:
    """A log that is cut as early as can be."""
    return ArchiveSettings(folder=Path(archives), keep_events=1_000, segment_events=100)


def run_retention(url: str, namespace: str, archives: str) -> None:
    policy = kept_short(archives)
    Retention(SyncClient(url), Keys(namespace), Path(archives), policy).run()


def run_renewal(url: str, namespace: str, archives: str) -> None:
    archive = Archive(SyncClient(url), Keys(namespace), Path(archives))
    with archive.locked():
        renew(archive, Path(archives), kept_short(archives), 0)


PROCESSES = {
    "renewal": run_renewal,
    "retention": run_retention,
    "snapshot": run_snapshot,
    "host": run_host,
    "worker": run_worker,
    "submitter": run_submitter,
}

if __name__ == "__main__":
    PROCESSES[sys.argv[1]](*sys.argv[2:])
