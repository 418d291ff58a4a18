"""The reference. Frozen: a change here makes older figures worthless.

``R``  raw synchronous redis-py with hiredis appends a 273-byte payload (fields ``type`` and
       ``data``) in pipelines of 100, for at least a second; entries per second.
``H``  a bare hand-off: XADD by one process, XREAD BLOCK by an asyncio process that notes the time;
       from just before the XADD to there, 200 times, 20 ms apart; p50 and p99 in µs.

Both on the same server, with the same fsync setting, as what is compared with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import redis.asyncio

PIPELINE = 100
SECONDS = 1.0
PAYLOAD = b'{"v":1,"task":"0123456789ab","text":"' + b"x" * 234 + b'"}'
TYPE = b"task.submitted"
ENTRIES, SPACING_S, WARM_UP = 200, 0.02, 10
RATE_KEY, HAND_OFF_KEY = "reference:rate", "reference:hand-off"

assert len(PAYLOAD) == 273

_sync: Any = redis.Redis  # Any: redis-py leaves its options without types
_asyncio: Any = redis.asyncio.Redis


def rate(url: str) -> float:
    """R, entries per second."""
    client: Any = _sync.from_url(url)
    client.delete(RATE_KEY)
    fields = {b"type": TYPE, b"data": PAYLOAD}
    count, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < SECONDS:
        pipe = client.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipe.xadd(RATE_KEY, fields)
        pipe.execute()
        count += PIPELINE
    client.delete(RATE_KEY)
    client.close()
    return count / elapsed


def hand_off(url: str, next_line: Callable[[], str]) -> tuple[float, float]:
    """H: p50 and p99 in µs. ``next_line`` gives the reader's notes, ``entry-id nanoseconds``."""
    client: Any = _sync.from_url(url)
    fields = {b"type": TYPE, b"data": PAYLOAD}
    taken: list[float] = []
    for _ in range(WARM_UP + ENTRIES):
        sent = time.monotonic_ns()  # on Linux and macOS one clock for all processes
        entry_id = client.xadd(HAND_OFF_KEY, fields)
        noted_id, noted = next_line().split()
        assert noted_id == entry_id.decode(), f"the reader noted {noted_id}, not {entry_id}"
        taken.append((int(noted) - sent) / 1000)
        time.sleep(SPACING_S)
    client.close()
    return percentile(taken[WARM_UP:], 50), percentile(taken[WARM_UP:], 99)


async def read_hand_offs(url: str, note: Callable[[str], None]) -> None:
    """The reader of H; runs until cancelled."""
    client: Any = _asyncio.from_url(url, socket_timeout=None)
    cursor = b"0-0"
    while True:
        reply = await client.xread({HAND_OFF_KEY: cursor}, block=0)
        now = time.monotonic_ns()
        for entry_id, _ in reply[0][1]:
            note(f"{entry_id.decode()} {now}")
            cursor = entry_id


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that ``percent`` % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
