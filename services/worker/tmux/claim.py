"""Which worker has a session of tmux: one, on the whole machine, whatever its bus or data folder.

A lock of the system on a file beside the socket of tmux's server, which is what its workers share.
It ends with its process, however that ends. Sessions of a group show the same panes, so they
are one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

from services.runtime.errors import ConfigError
from services.worker.tmux import server

HOLDER_BYTES = 4096
LOOK_S = 0.2


class Claim:
    """A worker's claim to a session of tmux; ``folder`` is the worker's own, named after it."""

    def __init__(self, folder: Path, session: str) -> None:
        self._folder, self._session = folder, session
        self._descriptor = -1

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    async def take(self) -> str:
        """ "" where it is ours now; else which worker has it. Raises OSError."""
        if self.held:
            return ""
        path = Path(f"{server.default_socket()}.asb-{await server.group_of(self._session)}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, HOLDER_BYTES, 0).decode("utf-8", "replace")
            os.close(descriptor)
            return holder or "a worker that is just starting"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self._name.encode("utf-8", "replace"), 0)
        self._descriptor = descriptor
        return ""

    @property
    def _name(self) -> str:
        return f"{self._folder.name} ({self._folder})"

    async def check(self) -> None:
        """Take it. A worker of our own name and folder is left to the bus, which says whose the
        name is: that may be ended for us yet. Raises ConfigError where another one has it,
        OSError."""
        holder = await self.take()
        if holder and holder != self._name:
            raise self._refused(holder)

    async def wait(self, within: float) -> None:
        """Until it is ours, at most so many seconds. Raises ConfigError, OSError."""
        until = time.monotonic() + within
        while holder := await self.take():
            if time.monotonic() > until:
                raise self._refused(holder)
            await asyncio.sleep(LOOK_S)

    def _refused(self, holder: str) -> ConfigError:
        return ConfigError(
            f"the agent in tmux session {self._session} has a worker already: {holder}",
            hint="give this one a session of its own (--session), or stop the other",
        )

    def release(self) -> None:
        """Nothing where it is not ours."""
        if self.held:
            os.close(self._descriptor)
        self._descriptor = -1
