"""A run of an agent under its clocks; what it has used so far is told meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import msgspec

from services.worker.drivers.sources import live
from services.worker.drivers.stream import AgentStream
from services.worker.process.supervised import Exit, Supervised
from services.worker.task import Task
from services.worker.telemetry import CallMeter

LOOK_S = 0.25  # how often clocks and usage are looked at


class Clocks(msgspec.Struct, frozen=True):
    """How long nothing may be seen, in seconds: before the first sign of work, between two of them,
    and while the agent only says that it cannot reach its provider."""

    first_s: float
    silence_s: float
    trouble_s: float = 240.0


class Watch:
    """A run under its clocks. ``over``: which of them ran out, as words."""

    def __init__(
        self, clocks: Clocks, run: Supervised, stream: AgentStream, task: Task, meter: CallMeter
    ) -> None:
        self._clocks, self._run, self._stream, self._task = clocks, run, stream, task
        self._meter = meter
        self.over = ""
        self._reported: Any = None

    async def wait(self) -> Exit:
        looking = asyncio.create_task(self._look_after())
        try:
            return await self._run.wait()
        finally:
            looking.cancel()

    async def _look_after(self) -> None:
        self._stream.worked_at = time.monotonic()
        while True:
            await anyio.sleep(LOOK_S)
            if self._task.paused:
                self._stream.worked_at = time.monotonic()
            elif not self.over and (over := self._run_out()):
                self.over = over
                self._run.end()
            await self._tell_spent()

    def _run_out(self) -> str:
        stream, clocks, now = self._stream, self._clocks, time.monotonic()
        quiet = now - stream.worked_at
        trouble = now - stream.in_trouble_since if stream.in_trouble_since else 0.0
        if trouble >= clocks.trouble_s:
            return f"could not reach its provider for {trouble:.0f} s and was ended"
        if stream.ended:  # it has told its result and does not go
            return f"did not end after its result for {quiet:.0f} s" if quiet >= 60 else ""
        if not stream.worked:
            return f"no answer within {quiet:.0f} s, ended" if quiet >= clocks.first_s else ""
        if quiet >= clocks.silence_s and not stream.tools:
            return f"silent for {quiet:.0f} s, ended"
        return ""

    async def _tell_spent(self) -> None:
        """So that a runaway is seen while it runs: what changed is told at the next look."""
        source, usage = live(self._stream, self._meter)
        if usage and usage != self._reported:
            self._reported = usage
            model = self._stream.model or self._meter.model
            await self._task.used_so_far(usage, model, source)
