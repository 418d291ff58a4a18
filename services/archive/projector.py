"""The archive service: keeps the log in Redis as long as its policy says, and no longer.

It looks now and then; what is due is done by a process of its own, off the loop. One archive
belongs to one log: where its files lie on another host, the service there does the work.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

from events.envelope import Event
from events.keys import Keys
from events.log import parse_id
from projections.state import State
from services.archive.retention import DAY_MS, Retention
from services.projector import Projector, Setup
from services.runtime import own_process
from services.runtime.clock import elapsed
from services.runtime.errors import AsbError, CommandRefused
from services.runtime.settings_around import ArchiveSettings
from services.store.client import SyncClient
from services.store.history import ArchiveMark, decode_mark, folder_of
from services.store.segments import CHAIN

logger = logging.getLogger("asb")

ERRAND = "services.archive.projector"
LOOK_S = 3.0
NICE = 5  # on a busy machine memory must not grow because nobody comes to cut the log
RETRY_S = (5.0, 300.0)  # first and longest pause after one that failed


class RetentionOrder(msgspec.Struct, frozen=True):
    """What its process is to do: ``policy`` is the section of the settings, but for the folder."""

    url: str
    namespace: str
    archives: str
    policy: dict[str, int | bool]


class Archiving(Projector):
    """Has the log archived and cut when that is due."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._client, self._keys = setup.client, setup.keys
        self._policy = setup.settings.archive
        policy = msgspec.structs.asdict(self._policy)
        del policy["folder"]
        self._folder = folder_of(setup.settings)
        order = RetentionOrder(setup.client.url, setup.keys.namespace, str(self._folder), policy)
        self._order = msgspec.json.encode(order)
        self._cleaned = ""
        self._mark: ArchiveMark | None = None
        self._error, self._failures, self._again = "", 0, 0.0

    def feed(self, events: Sequence[Event], state: State) -> None:
        self.restored(state)

    def restored(self, state: State) -> None:
        self._cleaned = f"{state.meta.words_removed} {state.meta.words_before}"

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: what the policy is, what left, and what failed since."""
        return {
            "keep_entries": self._policy.keep_events + self._policy.segment_events,
            "segments": self._mark.last.n if self._mark is not None else 0,
            "archive_failures": self._failures,
            "archive_error": self._error,
        }

    async def run(self) -> None:
        """Look, after a pause. Raises RedisUnavailable."""
        await anyio.sleep(LOOK_S)
        if elapsed() < self._again or not await self._due():
            return
        error = await own_process.errand(ERRAND, self._order)
        if not error:
            self._error, self._failures = "", 0
            return
        if not self._failures:
            logger.error("the log could not be archived: %s", error)
            hint = "the log in Redis grows until it can be; see `asb doctor`"
            alert = {"type": "ARCHIVE_FAILED", "error": error, "hint": hint}
            await self._client.call(
                "PUBLISH", self._keys.alerts_channel, msgspec.json.encode(alert)
            )
        self._error, self._failures = error, self._failures + 1
        self._again = elapsed() + min(RETRY_S[0] * 2 ** min(self._failures - 1, 10), RETRY_S[1])

    async def _due(self) -> bool:
        """Whether something may have to leave, or was left undone by somebody who died at it."""
        length, first, kept, time = await self._client.pipeline(
            (
                ("XLEN", self._keys.log),
                ("XRANGE", self._keys.log, "-", "+", "COUNT", 1),
                ("GET", self._keys.archive_mark),
                ("TIME",),
            )
        )
        if not length or isinstance(length, CommandRefused) or isinstance(kept, CommandRefused):
            return False
        try:
            self._mark = mark = decode_mark(kept, self._keys)
        except AsbError:
            return True  # its process says what is wrong with it
        if mark is not None and not (self._folder / Path(mark.name).name / CHAIN).is_file():
            return False  # it is kept elsewhere, and so is who cuts the log
        if mark is not None and (mark.swept != mark.cut or self._unclean(mark)):
            return True
        policy = self._policy
        oldest = int(time[0]) * 1_000 - (policy.keep_days + 1) * DAY_MS
        aged = policy.keep_days and parse_id(first[0][0].decode())[0] < oldest
        return bool(aged) or length >= policy.keep_events + policy.segment_events

    def _unclean(self, mark: ArchiveMark) -> bool:
        return mark.words and mark.cleaned != self._cleaned and bool(self._cleaned.strip(" 0"))


def projectors(setup: Setup) -> list[Projector]:
    """What the archive service does."""
    return [Archiving(setup)]


def main(order: bytes) -> None:
    """The process: archive and cut what is due."""
    asked = msgspec.json.decode(order, type=RetentionOrder)
    policy = msgspec.convert(asked.policy, ArchiveSettings)
    with contextlib.closing(SyncClient(asked.url, Keys(asked.namespace).log)) as client:
        Retention(client, Keys(asked.namespace), Path(asked.archives), policy).run()


if __name__ == "__main__":
    own_process.run_errand(main, NICE)
