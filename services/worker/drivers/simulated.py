"""The demonstration's agent: it pretends, and says so in every report (``evidence: simulated``).

What it does is a function of the task's id and attempt alone: how long it takes (300 ms to 2 s,
divided by ``speed``), what it would have spent, and whether it fails (one attempt in twenty, so
that the retry is seen). Only ``asb demo`` uses it; nothing simulated runs unasked.
"""

from __future__ import annotations

import hashlib
import random

import anyio

from services.worker.task import Result, RetryableError, Task

EVIDENCE = {"evidence": "simulated"}
_FAILURES = (
    "the model's endpoint answered 529 (overloaded)",
    "the connection was reset while the answer came in",
    "a tool call timed out",
)
_STEPS = 3


class SimulatedDriver:
    """See the module. ``speed`` 2 is twice as fast; ``failing`` attempts per thousand fail."""

    def __init__(self, *, speed: float = 1.0, failing: int = 50) -> None:
        self._speed = speed
        self._failing = failing

    async def prepare(self) -> None: ...

    def renewed(self, until: float, end: float, /) -> None: ...

    async def run(self, task: Task, /) -> Result:
        task.extra = EVIDENCE
        chance = random.Random(_seed(task))
        seconds = chance.uniform(0.3, 2.0) / self._speed
        output = chance.randrange(120, 1400)
        fails_at = chance.randrange(_STEPS) if chance.randrange(1000) < self._failing else None
        task.usage(
            input_tokens=len(task.text) // 4 + chance.randrange(400, 1200),
            cache_write_tokens=chance.randrange(0, 500),
        )
        for step in range(_STEPS):
            await anyio.sleep(seconds / _STEPS)
            task.usage(output_tokens=output // _STEPS, cache_read_tokens=chance.randrange(0, 4000))
            if step == fails_at:
                raise RetryableError(f"simulated: {chance.choice(_FAILURES)}")
        title = " ".join(task.text.split())[:100]
        return Result(f"simulated: pretended to work on “{title}” for {seconds:.1f} s")


def _seed(task: Task) -> int:
    digest = hashlib.sha256(f"{task.id}\0{task.attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
