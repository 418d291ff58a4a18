"""Who says what an attempt used, and whose word is charged: the best that is there. The others go
along in the report, to be compared.

The agent's own result comes first, then the calls in its telemetry, its transcript, and at last
what its stream let be seen on the way.
"""

from __future__ import annotations

import logging
from typing import Any

from events.tokens import read
from services.ledger import rank
from services.worker.drivers.stream import AgentStream
from services.worker.task import Task
from services.worker.telemetry import CallMeter

log = logging.getLogger("asb.worker")

DRIVER, TELEMETRY, TRANSCRIPT, STREAM = "driver", "telemetry", "transcript", "stream"


def live(stream: AgentStream, meter: CallMeter) -> tuple[str, Any]:
    """While it runs: whoever has seen more of it (a stream does not show subagents, telemetry
    comes late), and what."""
    if _whole(meter.usage) >= _whole(stream.live_usage):
        return TELEMETRY, meter.usage
    return STREAM, stream.live_usage


def _whole(usage: Any) -> int:
    parts = read(usage).usage if usage else None
    return parts.whole if parts is not None else 0


def note(
    task: Task, stream: AgentStream, meter: CallMeter, transcript: dict[str, Any] | None
) -> None:
    """What the attempt's report shall say, however it ends."""
    said = {
        DRIVER: stream.used,
        TELEMETRY: meter.usage,
        TRANSCRIPT: transcript,
        STREAM: stream.live_usage,
    }
    known = {source: usage for source, usage in said.items() if usage}
    task.meter = min(known, key=rank, default="")
    task.spent = known.pop(task.meter, None)
    known.pop(STREAM, None)
    task.other_meters = known or None
    task.model_used = stream.model or meter.model
    task.cost_usd = stream.cost_usd
    task.calls = 0 if stream.no_call and not task.spent else None
    task.extra = {**(task.extra or {}), **stream.facts()} or None
    if stream.unknown:
        log.info("task %s: lines of unknown types: %s", task.id, dict(stream.unknown))
