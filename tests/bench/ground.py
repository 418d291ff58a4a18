"""What measures stand on: a server, the processes of a bus, and what machine this is."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from events.keys import Keys
from services.store.client import SyncClient
from services.store.rebuild import rebuild
from tests.bench import reference
from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
CAPACITY = 500
POLL_S = 0.005
QUIET_S = 0.25
LIFE = 4  # events of a task that does nothing: submitted, delegated, dispatched, completed
SUBMIT_BATCH = 500


class Child:
    """One process of ``children``, of the checkout at ``root``. CPU seconds need /proc; elsewhere
    they read as 0."""

    def __init__(
        self, *arguments: str, module: str = "tests.bench.children", root: Path = ROOT
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.line() != "ready":
            raise RuntimeError(f"{arguments[0]} did not start")

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended")
        return line.strip()

    def stop(self) -> str:
        """End it; what it said since."""
        said, _ = self._process.communicate(timeout=60)
        return said

    @property
    def cpu(self) -> float:
        return cpu_of(self._process.pid)

    @property
    def resident(self) -> int:
        return resident_of(self._process.pid)

    def asked(self) -> str:
        """What it answers to a line on its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()


def resident_of(pid: int) -> int:
    """Bytes of a process in memory."""
    with contextlib.suppress(OSError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def cpu_of(pid: int) -> float:
    """User and system seconds of a process so far."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ground:
    """A server of the bench's own: AOF as asked, no RDB, no rewrite in the middle of a measure."""

    def __init__(self, server: RedisServer, fsync: str) -> None:
        self.url, self.fsync = server.url, fsync
        self.client = SyncClient(server.url)
        self.reader = Child("reader", server.url, "")
        self._names = 0

    @classmethod
    @contextlib.contextmanager
    def open(cls, fsync: str) -> Generator[Ground]:
        with tempfile.TemporaryDirectory(prefix="asb-bench-") as folder:
            server = RedisServer(
                Path(folder) / "redis",
                appendfsync=fsync,
                options=("--auto-aof-rewrite-percentage", "0"),
            ).start()
            try:
                with contextlib.closing(cls(server, fsync)) as ground:
                    yield ground
            finally:
                server.stop()

    def close(self) -> None:
        self.reader.stop()
        self.client.close()

    def keys(self) -> Keys:
        """A namespace nobody used; everything else on the server is forgotten."""
        self.client.call("FLUSHALL", "SYNC")
        return self.more_keys()

    def more_keys(self) -> Keys:
        """A namespace nobody used, beside the others."""
        self._names += 1
        return Keys(f"bench{self._names}")

    def rate(self) -> float:
        """The reference R."""
        return reference.rate(self.url)

    def hand_off(self) -> tuple[float, float]:
        """The reference H."""
        return reference.hand_off(self.url, self.reader.line)

    @property
    def server_cpu(self) -> float:
        cpu = self.info("cpu")
        return float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])

    def info(self, section: str) -> dict[str, str]:
        """What the server says of itself."""
        said: bytes = self.client.call("INFO", section)
        return dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)


class Bus:
    """An engine and a no-op worker, each in a process of its own, on a fresh namespace."""

    def __init__(
        self,
        ground: Ground,
        profile: str = "",
        *,
        keys: Keys | None = None,
        root: Path = ROOT,
        engine: str = "tests.bench.children",
    ) -> None:
        self.ground, self.keys = ground, keys or ground.keys()
        self.client, namespace = ground.client, self.keys.namespace
        self.engine = Child("engine", ground.url, namespace, profile, module=engine, root=root)
        self.worker = Child("worker", ground.url, namespace, str(CAPACITY), root=root)
        self.submitted = self.titled = 0  # tasks, and the place of the next one's title
        self._wait(lambda: self._last_type() == b"worker.joined", "the worker has joined")

    def submit(self, titles: Sequence[str]) -> None:
        bulk_submit(self.client, self.keys, titles)
        self.submitted += len(titles)

    def done(self, before: int, count: int) -> float:
        """When (``time.monotonic``) the last of ``count`` tasks was complete on the log.

        ``before`` is what had been added to the log when the first of them was submitted.
        """
        self._wait(lambda: self.added >= before + LIFE * count, f"{count} tasks are done")
        added, changed = self.added, time.monotonic()
        while time.monotonic() - changed < QUIET_S:
            time.sleep(POLL_S)
            if (now := self.added) != added:
                added, changed = now, time.monotonic()
        return changed

    @property
    def length(self) -> int:
        return int(self.client.call("XLEN", self.keys.log))

    @property
    def added(self) -> int:
        """Entries that were ever appended to the log, those cut since with them."""
        answer = self.client.call("XINFO", "STREAM", self.keys.log)
        pairs = dict(zip(answer[::2], answer[1::2], strict=True))
        return int(pairs[b"entries-added"])

    def cpu(self) -> dict[str, float]:
        return {
            "engine": self.engine.cpu,
            "worker": self.worker.cpu,
            "client": cpu_of(os.getpid()),
            "redis": self.ground.server_cpu,
        }

    def stop(self) -> dict[str, int]:
        """End both; which task the worker began when (ns). The log must say that all are done."""
        begun: list[tuple[str, int]] = msgspec.json.decode(self.worker.stop().splitlines()[-1])
        self.engine.stop()
        meta = rebuild(self.client, self.keys, snapshot=False).meta
        if meta.completed != self.submitted or len(begun) != self.submitted:
            raise RuntimeError(
                f"of {self.submitted} tasks {len(begun)} began and {meta.completed} were completed"
            )
        return dict(begun)

    def _last_type(self) -> bytes:
        found = self.client.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
        return found[0][1][1] if found else b""

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within 300 s: {what}")
            time.sleep(POLL_S)


def bulk_submit(client: SyncClient, keys: Keys, titles: Sequence[str]) -> None:
    """Thousands of submissions from one process."""
    encode, intake = msgspec.json.Encoder().encode, keys.main_intake
    for start in range(0, len(titles), SUBMIT_BATCH):
        client.pipeline(
            ("XADD", intake, "*", "type", "task.submitted", "data", encode({"text": text}))
            for text in titles[start : start + SUBMIT_BATCH]
        )


def load_now() -> str:
    """The load averages, as text."""
    return " ".join(f"{x:.2f}" for x in os.getloadavg())


def machine(ground: Ground) -> dict[str, Any]:
    """What the figures depend on."""
    info: bytes = ground.client.call("INFO", "server")
    server = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    return {
        "cpus": os.cpu_count(),
        "load": load_now(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "server": server["redis_version"],
        "appendfsync": ground.fsync,
        **{name: version(name) for name in ("redis", "hiredis", "msgspec")},
    }
