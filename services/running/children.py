"""Processes of our own beside a host: workers and readers, started again when they end.

What an agent's output costs to read never delays the engine, a second core is used, and the death
of one is nobody else's. Each holds the read end of a pipe from here, so that none outlives us,
whatever ends us.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence

import msgspec

from services.runtime import own_process

RESTART_S = (1.0, 30.0)  # first and longest pause before a process that ended is started again
FAILED_QUICKLY_S = 3.0
CHECK_S = 0.3  # how often they are looked after
STOP_S = 15.0  # how long workers beside a command have for their last reports
OWNED = "--until-stdin-closes"  # we hold the other end: the death of us closes it

Say = Callable[[str], object]  # to the person at the terminal


class WorkerSpec(msgspec.Struct, frozen=True):
    """A worker to run in a process of its own: its name and the rest of its command line."""

    name: str
    arguments: tuple[str, ...]


class ChildProcess:
    """A process of ours beside the bus: a worker, or a reader. Started again when it ends by
    itself. ``label`` names it to people, whom ``say`` tells; ``arguments`` are its command line."""

    def __init__(self, label: str, say: Say, *arguments: str) -> None:
        self.label, self._say, self._arguments = label, say, arguments
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
            self._say(f"{self.label} ended with {code}; again in {self._pause:.0f} s")
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

    def wait(self, within: float) -> None:
        """Until it has ended, at most so many seconds."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, within))

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


def worker_process(spec: WorkerSpec, options: Sequence[str], say: Say) -> ChildProcess:
    """A worker of this bus, which ``options`` name; it ends with us."""
    given = (OWNED, *options, *spec.arguments)
    return ChildProcess(f"worker {spec.name}", say, "worker", spec.name, *given)


@contextlib.contextmanager
def workers_beside(
    specs: Sequence[WorkerSpec], options: Sequence[str], say: Say
) -> Generator[list[ChildProcess]]:
    """Workers beside a command of the bus that ``options`` name, for as long as the block lasts."""
    processes = [worker_process(spec, options, say) for spec in specs]
    over = threading.Event()

    def look_after() -> None:
        while not over.wait(CHECK_S):
            for process in processes:
                process.look_after(time.monotonic())

    looking = threading.Thread(target=look_after, daemon=True)
    if processes:
        looking.start()
    try:
        yield processes
    finally:
        over.set()
        if processes:
            looking.join()
        for process in processes:
            process.ask_to_stop()
        until = time.monotonic() + STOP_S
        for process in processes:
            process.wait(until - time.monotonic())
            process.kill()


def reader_process(name: str, options: Sequence[str], say: Say) -> ChildProcess:
    """A reader of this bus in a process of its own, off the engine's loop; it ends with us."""
    return ChildProcess(f"the {name}", say, "service", name, OWNED, *options)
