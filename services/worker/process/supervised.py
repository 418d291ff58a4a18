"""A command below its supervisor, seen from the worker.

Drivers that run a process per task use this: whatever happens to the task, the worker or the
command, nothing that the command has started outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from services.worker.process import runs
from services.worker.task import RESULT_BYTES, RetryableError

_PIPE_BYTES = 64 * 1024
_AFTER_S = 2.0  # how long output may be awaited when every process of the run is gone


class Exit(msgspec.Struct, frozen=True):
    """How a command ended: exactly one of ``code``, ``signal`` (its number) and ``errno`` is set;
    none of them when the supervisor itself was killed. ``ended`` processes had to be ended."""

    code: int | None = None
    signal: int | None = None
    errno: int | None = None
    ended: int = 0
    why: str = ""


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Tail:
    """The last ``limit`` bytes of what was written, and how much there was."""

    def __init__(self, limit: int = RESULT_BYTES) -> None:
        self.total = 0
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._held = 0

    def write(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self._held += len(chunk)
        self._chunks.append(chunk)
        while self._held - len(self._chunks[0]) >= self._limit:
            self._held -= len(self._chunks.popleft())

    def bytes(self) -> bytes:
        return b"".join(self._chunks)[-self._limit :]

    def text(self) -> str:
        """Decoded, binary replaced."""
        return self.bytes().decode("utf-8", "replace")

    @property
    def left_out(self) -> int:
        """Bytes that were written before those that are held."""
        return max(0, self.total - self._limit)


class Supervised:
    """One command. ``start`` it, ``wait`` for it; ``end`` has everything ended."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: bytes | None = None,
        grace_s: float = 5.0,
        lease: tuple[float, float] = (math.inf, math.inf),
        stdout: Tail | None = None,
        cwd: str | None = None,
    ) -> None:
        """``stdin`` none: it reads from the null device. ``lease``: see ``renew``."""
        self.stdout = stdout or Tail()
        self.stderr = Tail(8 * 1024)
        self._command = list(command)
        self._mark = runs.new_mark()
        self._env = {**env, runs.MARK: self._mark}
        self._stdin = stdin
        self._grace = grace_s
        self.interrupt_s = 0.0  # how long it has to end by itself after a SIGINT; 0: it gets none
        self.talk: Talk | None = None  # holds a conversation in place of ``stdin`` and ``stdout``
        self._cwd = cwd
        self._lease = lease
        self._said = b""
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def renew(self, until: float, end: float) -> None:
        """The command may live until ``until`` (``time.monotonic``) without another word from us;
        at ``end`` nothing of it may be left."""
        self._lease = (until, end)
        self._say(b"L %.3f %.3f\n" % self._lease)

    def end(self) -> None:
        """Have the command and all its descendants ended; ``wait`` tells when they are gone."""
        self._say(b"K\n")

    def pause(self, paused: bool) -> None:
        """Have every descendant stopped where it is, or go on."""
        self._say(b"S\n" if paused else b"C\n")

    def _say(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # it is over already
            self._ours.send(line)

    async def wait(self) -> Exit:
        """Run it, to the end. A cancellation ends every descendant before it goes on from here.

        Raises RetryableError when the machine is out of processes or memory, ValueError when
        the command line is too long.
        """
        # A task of its own: a cancellation, even a second one, must not cut the ending short.
        work = asyncio.ensure_future(self._work())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.end()
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError:
                    continue
            if not work.cancelled():
                work.exception()  # seen: the cancellation is what counts
            raise

    async def _work(self) -> Exit:
        try:
            process = await self._spawn()
            await self._serve(process)
        finally:
            self._ours.close()
            self._theirs.close()
        return self._exit()

    async def _spawn(self) -> asyncio.subprocess.Process:
        start = [sys.executable, "-I", "-S", runs.SUPERVISOR, str(self._theirs.fileno())]
        times = [repr(seconds) for seconds in (self.interrupt_s, self._grace, *self._lease)]
        try:
            process = await asyncio.create_subprocess_exec(
                *start,
                *times,
                *self._command,
                stdin=asyncio.subprocess.DEVNULL
                if self._stdin is None
                else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[self._theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the worker's terminal is for the worker
                env=self._env,
                cwd=self._cwd,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise ValueError("the command line is too long for this system") from error
            raise RetryableError(f"no process could be started: {error}") from error
        self._theirs.close()
        return process

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        async with anyio.create_task_group() as group:
            done: list[anyio.Event] = []

            def start(work: Callable[..., Any], *args: Any) -> None:
                event = anyio.Event()
                done.append(event)
                group.start_soon(_then_set, event, work, *args)

            start(_pump, process.stderr, self.stderr)
            if self.talk is not None:
                start(self._talk, process)
            else:
                start(_pump, process.stdout, self.stdout)
            if self._stdin is not None and self.talk is None:
                start(_feed, process.stdin, self._stdin)
            await self._listen()
            if not self._said:  # killed: nobody ended what it looked after
                await asyncio.to_thread(runs.sweep, self._mark)
            with anyio.move_on_after(_AFTER_S):
                for event in done:
                    await event.wait()
                await process.wait()
            group.cancel_scope.cancel()

    async def _talk(self, process: asyncio.subprocess.Process) -> None:
        """Hold the conversation; when it is over, so is the run."""
        assert self.talk is not None
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            await self.talk(process.stdout, process.stdin)
        finally:
            self.end()

    async def _listen(self) -> None:
        """Until the supervisor's end of the socket is closed: it is gone, however it went."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                said = await loop.sock_recv(self._ours, 4096)
            except ConnectionError:
                return
            if not said:
                return
            self._said += said

    def _exit(self) -> Exit:
        parts = self._said.decode().strip().split(" ", 3)
        if len(parts) < 4:
            return Exit()
        word, figure, ended, why = parts
        return Exit(
            code=int(figure) if word == "exit" else None,
            signal=int(figure) if word == "signal" else None,
            errno=int(figure) if word == "error" else None,
            ended=int(ended),
            why=why,
        )


async def _then_set(event: anyio.Event, work: Callable[..., Any], *args: Any) -> None:
    try:
        await work(*args)
    finally:
        event.set()


async def _pump(stream: asyncio.StreamReader, sink: Tail) -> None:
    while chunk := await stream.read(_PIPE_BYTES):
        sink.write(chunk)


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    try:
        for start in range(0, len(data), _PIPE_BYTES):
            stream.write(data[start : start + _PIPE_BYTES])
            await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # a command need not read its input
