"""Whether what a server has written is on its replicas, too: then no failover loses it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from services.runtime import urls
from services.runtime.clock import elapsed
from services.store.client import SyncClient
from services.store.replies import info_of

WITHIN_S = 2.0  # a replica says once a second how far it is
PAUSE_S = 0.05
_OFFSET = re.compile(r"\boffset=(\d+)")


def replicated(client: SyncClient, within_s: float = WITHIN_S) -> bool:
    """Whether every replica has all that its primary, on a Cluster the one of the client's home,
    had when this was asked, after waiting for that a while. Where a replica may take over there has
    to be one. Raises RedisUnavailable."""
    until, begun = elapsed() + within_s, _asked(client)
    fails_over = urls.sentinel(client.url) is not None or bool(client.primaries)
    while True:
        now = _asked(client)
        if now["master_replid"] != begun["master_replid"]:
            return False  # another has taken over: its offsets count another past
        if _is_reached(begun, now, fails_over):
            return True
        if elapsed() >= until:
            return False
        time.sleep(PAUSE_S)


def _asked(client: SyncClient) -> dict[str, str]:
    return info_of(client.call("INFO", "replication"))


def _is_reached(before: Mapping[str, str], now: Mapping[str, str], fails_over: bool) -> bool:
    """Whether all replicas that follow ``now`` are where the primary was ``before``."""
    lines = [line for name, line in now.items() if re.fullmatch(r"slave\d+", name)]
    if now["role"] != "master" or (not lines and fails_over):
        return False
    reached = [int(known[1]) for line in lines if (known := _OFFSET.search(line))]
    wanted = int(before["master_repl_offset"])
    return len(reached) == len(lines) and all(offset >= wanted for offset in reached)
