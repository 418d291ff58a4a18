"""Snapshots, written off the loop: a process of its own folds the tail and keeps the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import anyio

from events.envelope import Event
from events.keys import Keys
from projections.state import State
from services.runtime.client import SyncClient
from services.runtime.replay import write_snapshot

TAIL_MIN = 50_000
NICE = 15


class Snapshots:
    """Lets a snapshot be written when the tail exceeds max(50,000, 2 × open tasks)."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url, self._keys = url, keys
        self._kept = 0  # events that the newest snapshot holds
        self._wake = anyio.Event()
        self._events = 0

    def feed(self, events: Sequence[Event], state: State) -> None:
        self._events = state.meta.events
        if self._events - self._kept > max(TAIL_MIN, 2 * len(state.tasks)):
            self._wake.set()

    def restored(self, state: State) -> None:
        self._kept = self._events = state.meta.events

    async def run(self) -> None:
        await self._wake.wait()
        self._wake = anyio.Event()
        kept = self._events
        await write_in_process(self._url, self._keys)
        self._kept = kept


async def write_in_process(url: str, keys: Keys) -> None:
    """Write a snapshot in a process of its own. The URL travels by environment: it may hold a
    password."""
    environment = {**os.environ, "ASB_RUN_URL": url, "ASB_RUN_NAMESPACE": keys.namespace}
    await anyio.run_process(
        [sys.executable, "-m", "services.runtime.snapshots"], env=environment, check=False
    )


def main() -> None:
    """The process: fold and keep, politely."""
    os.nice(NICE)
    client = SyncClient(os.environ["ASB_RUN_URL"])
    write_snapshot(client, Keys(os.environ["ASB_RUN_NAMESPACE"]))


if __name__ == "__main__":
    main()
