"""How soon people have an answer, and a restarted bus works, when the log is long.

The bus is one that users start: ``asb up`` with two workers, and the commands of ``asb``.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from events.keys import Keys
from services.runtime import initial_policy
from services.store.client import SyncClient
from tests.bench.children import settings
from tests.bench.ground import ROOT, Ground, load_now
from tests.bench.history import History
from tests.bench.measures import STARTUP_EVENTS, Figure, Plan, Spread
from tests.e2e.cli import Process, asb
from tests.wait import wait_blocking

WAITING = 10_000
SNAPSHOT_S = 300.0
# Limits that are looked at and do not bind: what they count is of the last day.
CONFIG = """\
[policy]
limits = [
  { scope = "global", unit = "tokens", window = "day", amount = 900_000_000_000 },
  { scope = "worker", unit = "tokens", window = "hour", amount = 900_000_000_000 },
  { scope = "global", unit = "money", window = "month", amount = 900_000_000 },
]
"""


def reading(ground: Ground, plan: Plan) -> list[Figure]:
    """``asb status``, ``asb tasks`` and ``asb task ID`` beside the bus at work; then everything
    but Redis is killed, and started again until a task is dispatched."""
    for room in ("events", "projections", "services"):  # as pip leaves what it installs
        compileall.compile_dir(ROOT / room, quiet=1)
    ground.keys()
    client, keys = SyncClient(ground.url), Keys("asb")
    events = max(plan.events, STARTUP_EVENTS)
    history = History(client, keys, events, initial_policy.policy(settings("asb")), indexed=True)
    history.grow(events)
    history.rest(WAITING)
    with TemporaryDirectory(prefix="asb-bench-") as folder, contextlib.closing(client):
        bus = _Bus(Path(folder), ground, keys)
        before = bus.newest()
        with bus.up() as host:
            bus.settled(before)
            notes = f"{history.events:,} events, {WAITING:,} waiting; {bus.memory(host)}"
            task = bus.some_task()
            aims = {("status",): 0.3, ("tasks",): 1.0, ("task", task): 1.0}
            figures = [_figure(f"asb {words[0]}", [bus.asked(*words) for _ in range(plan.repeats)],
                               aim, notes) for words, aim in aims.items()]  # fmt: skip
        starts = [bus.restarted() for _ in range(plan.repeats)]
    return [*figures, _figure("restart to first dispatch", starts, 2.0, notes)]


def _figure(name: str, seconds: list[float], aim: float, notes: str) -> Figure:
    return Figure(
        name, "s", Spread.of(seconds), aim, f"≤ {aim:g} s", False, notes=notes, load=load_now()
    )


class _Bus:
    """A bus in production's own processes, on the server of the bench."""

    def __init__(self, folder: Path, ground: Ground, keys: Keys) -> None:
        self._folder, self._ground, self._keys = folder, ground, keys
        self._client = ground.client
        self._log = folder / "up.log"
        (folder / "asb.toml").write_text(CONFIG)
        self._options = (f"--redis={ground.url}", f"--config={folder / 'asb.toml'}")

    @contextlib.contextmanager
    def up(self) -> Generator[int]:
        """``asb up``, killed with all its processes afterwards; its process id."""
        host = Process(self._folder, "up", *self._options, "--workers=2", "--", "sleep", "600")
        self._log = host.log
        try:
            yield host.process.pid
        finally:
            os.killpg(host.process.pid, signal.SIGKILL)
            host.process.wait()

    def settled(self, before: bytes) -> None:
        """Tasks run, and a snapshot of the whole log stands."""
        self._dispatches_after(before)
        wait_blocking(
            lambda: self._client.call("EXISTS", self._keys.snapshot),
            within=SNAPSHOT_S,
            what="a snapshot",
        )

    def newest(self) -> bytes:
        """The id of the log's last entry."""
        stream = self._client.call("XINFO", "STREAM", self._keys.log)
        return dict(zip(stream[::2], stream[1::2], strict=True))[b"last-generated-id"]

    def asked(self, *words: str) -> float:
        """Seconds of one command, to its end."""
        began = time.monotonic()
        self._said(*words)
        return time.monotonic() - began

    def some_task(self) -> str:
        return json.loads(self._said("tasks", "--json", "--limit=1"))[0]["task"]

    def _said(self, *words: str) -> str:
        done = asb(words[0], *self._options, *words[1:], cwd=self._folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def restarted(self) -> float:
        """Seconds from the start of ``asb up`` to a dispatch; one that lost its workers gives their
        names back first."""
        before = self.newest()
        began = time.monotonic()
        with self.up():
            self._dispatches_after(before)
            return time.monotonic() - began

    def _dispatches_after(self, entry: bytes) -> None:
        def has() -> bool:
            said = self._log.read_text()
            assert "error: " not in said, said
            new = self._client.call("XRANGE", self._keys.log, b"(" + entry, "+")
            return any(fields[1] == b"task.dispatched" for _, fields in new)

        wait_blocking(has, within=SNAPSHOT_S, what="a task is dispatched")

    def memory(self, host: int) -> str:
        status = Path(f"/proc/{host}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        redis = int(self._ground.info("memory")["used_memory_rss"])
        return f"host {int(line.split()[1]) / 1024:.0f} MB, Redis {redis / 1e6:.0f} MB"
