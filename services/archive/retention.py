"""How long the log stays in Redis: what is older goes to the archive, and then leaves.

The order is what makes it safe: the segment is in its file and in the mark; a snapshot behind it is
in Redis; a checkpoint within it is kept beside the file; what is still needed of its words is
carried; the mark says where the log begins from now on; only then the log is cut, and at last the
indexes of tasks that are over leave. Whoever dies in between is gone on from by the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from events.keys import Keys
from events.log import START, after, is_id, parse_id
from projections.state import State
from services.archive.copying import Archive, Change, wordless
from services.archive.forgetting import gone_tasks, without_words_of
from services.archive.states import keep_checkpoint
from services.runtime.failpoints import point
from services.runtime.settings_around import KEEP_EVENTS_MIN, ArchiveSettings
from services.store import checkpoints, rebuild, snapshot_record
from services.store.client import SyncClient
from services.store.heartbeat import beats
from services.store.history import move_mark, task_of_entry
from services.store.scripts import script
from services.store.segments import Entry, SegmentRecord, entries_of

DAY_MS = 86_400_000
KEPT = KEEP_EVENTS_MIN  # entries that stay however old they are: readers follow there
AT_ONCE = 50  # segments of one run: then what is left over is looked after, too
STEP = 2_000  # entries a cut: a longer one stops Redis for too long


class Retention:
    """Keeps one log as short as its policy says. Raises AsbError and CommandRefused throughout."""

    def __init__(self, client: SyncClient, keys: Keys, base: Path, policy: ArchiveSettings) -> None:
        self._client, self._keys, self._base, self._policy = client, keys, base, policy
        self._archive = Archive(client, keys, base)
        self._covers: State | None = None  # a state that is kept in Redis, as it was read last

    def run(self) -> int:
        """Archive and cut what is due, or a good part of it; how many entries left."""
        with self._archive.locked() as ours:
            if not ours or self._archive.is_elsewhere:
                return 0
            self._resume()
            cut = 0
            for _ in range(AT_ONCE):
                record = self._next()
                if record is None:
                    break
                self._leave(record)
                cut += record.entries
            if (mark := self._archive.mark) is not None:
                checkpoints.forget_before(self._client, self._keys, mark.begins)
            state = rebuild.rebuild(self._client, self._keys, archives=self._base)
            self._drop_carried(state)
            self._clean(state)
            return cut

    # -- what is due -----------------------------------------------------------------------------

    def _next(self) -> SegmentRecord | None:
        """The next segment that may leave, archived; None where nothing is due, or somebody still
        reads it."""
        chain, mark = self._archive.chain(), self._archive.mark
        cut = mark.cut if mark is not None else 0
        whole, policy = self._policy.segment_events, self._policy
        surplus = self._client.call("XLEN", self._keys.log) - policy.keep_events
        aged = min(self._aged(whole), surplus + policy.keep_events - KEPT)
        if len(chain) > cut:
            ready = chain[cut].entries <= max(surplus, aged)
        elif ready := surplus >= whole or aged > 0:
            chain += self._archive.extend(
                whole if surplus >= whole else aged, words=policy.words, number=1
            )
        return chain[cut] if ready and not self._is_read(chain[cut]) else None

    def _aged(self, at_most: int) -> int:
        """How many entries are older than the policy has it; none until that makes a day's."""
        oldest = too_old(self._client, self._policy.keep_days)
        first = self._client.call("XRANGE", self._keys.log, "-", "+", "COUNT", 1)
        if not oldest or not first or parse_id(first[0][0].decode())[0] >= oldest - DAY_MS:
            return 0
        return len(
            self._client.call("XRANGE", self._keys.log, "-", f"({oldest}-0", "COUNT", at_most)
        )

    def _is_read(self, record: SegmentRecord) -> bool:
        """Whether a process that lives, by its heartbeat, has not folded all of it yet. One that
        does not live folds the log again anyway."""
        places = (beat.figures.get("log_id", "") for beat in beats(self._client, self._keys))
        return any(is_id(place) and not after(place, record.last) for place in places)

    # -- one segment leaves ----------------------------------------------------------------------

    def _leave(self, record: SegmentRecord) -> None:
        """Steps of one segment, in the order that the module's head says."""
        point("archive.marked")
        state = self._covering(record)
        point("archive.covered")
        keep_checkpoint(self._client, self._keys, self._archive.folder, record)
        self._carry(record, state)
        point("archive.carried")
        mark = self._archive.mark
        assert mark is not None
        now = msgspec.structs.replace(
            mark,
            begins=self._behind(record.last),
            cut=record.n,
            entries=mark.entries + record.entries,
        )
        self._archive.mark = move_mark(self._client, self._keys, mark, now)
        point("archive.begins")
        entries = list(entries_of(self._archive.folder, record))
        self._cut(entries)
        point("archive.cut")
        self._sweep(record, entries, state)

    def _covering(self, record: SegmentRecord) -> State:
        """A state that is kept in Redis and stands behind the segment."""
        state = self._covers or rebuild.load_snapshot(self._client, self._keys)
        if state is None or not after(state.meta.log_id, record.last):
            snapshot_record.keep(self._client, self._keys, self._base)
            state = rebuild.load_snapshot(self._client, self._keys)
        if state is None or not after(state.meta.log_id, record.last):
            raise rebuild.BeginningLost(
                f"no snapshot stands behind {record.last}: the log is not cut there",
                hint="`asb doctor` says why none is kept",
            )
        self._covers = state
        return state

    def _carry(self, record: SegmentRecord, state: State) -> None:
        """Entries whose words somebody will ask for, by a state behind the segment, are kept beside
        the log."""
        places = {place for place in needed(state) if not after(place, record.last)}
        for ids in _batches(sorted(places, key=parse_id), 100):
            script("carry").now(self._client, [self._keys.log, self._keys.carried], [*ids])

    def _behind(self, place: str) -> str:
        """The id of the first entry after ``place``."""
        reply = self._client.call("XRANGE", self._keys.log, f"({place}", "+", "COUNT", 1)
        return reply[0][0].decode()

    def _cut(self, entries: list[Entry]) -> None:
        places = [entry[0].decode() for entry in entries]
        ends = [*places[STEP::STEP], self._archive.mark.begins if self._archive.mark else START]
        for begins in ends:
            self._client.call("XTRIM", self._keys.log, "MINID", begins)

    def _sweep(self, record: SegmentRecord, entries: list[Entry], state: State) -> None:
        """Indexes of tasks that are over leave."""
        mark = self._archive.mark
        assert mark is not None
        names = {task_of_entry(entry) for entry in entries}
        for tasks in _batches(sorted(names - state.tasks.keys() - {""}), 500):
            indexes = [self._keys.task_index(task) for task in tasks]
            script("sweep").now(self._client, indexes, [mark.begins])
        now = msgspec.structs.replace(mark, swept=record.n)
        self._archive.mark = move_mark(self._client, self._keys, mark, now)
        point("archive.swept")

    def _drop_carried(self, state: State) -> None:
        """What nobody will ask for any more."""
        wanted = needed(state)
        carried = self._client.call("XRANGE", self._keys.carried, "-", "+")
        over = [entry[0] for entry in carried if entry[0].decode() not in wanted]
        for ids in _batches(over, 500):
            self._client.call("XDEL", self._keys.carried, *ids)

    def _resume(self) -> None:
        """Go on where somebody died: cut what the mark says is cut, and sweep."""
        mark, chain = self._archive.mark, self._archive.chain()
        if mark is None or mark.swept == mark.cut:
            return
        state = rebuild.rebuild(self._client, self._keys, archives=self._base)
        for record in chain[mark.swept : mark.cut]:
            entries = list(entries_of(self._archive.folder, record))
            self._cut(entries)
            self._sweep(record, entries, state)

    # -- words -----------------------------------------------------------------------------------

    def _clean(self, state: State) -> None:
        """Words that were forgotten since leave the archive, too, where it holds any."""
        mark = self._archive.mark
        if mark is None or not mark.words:
            return
        meta = state.meta
        cleaned = f"{meta.words_removed} {meta.words_before}"
        if mark.cleaned == cleaned or not cleaned.strip(" 0"):
            return
        renew(self._archive, self._base, self._policy, meta.words_before)
        mark = self._archive.mark or mark
        now = msgspec.structs.replace(mark, cleaned=cleaned)
        self._archive.mark = move_mark(self._client, self._keys, mark, now)


def too_old(client: SyncClient, keep_days: int) -> int:
    """Entries from before then, ms since the epoch by the server, are older than ``keep_days``; 0
    where none ever is."""
    seconds, _ = client.call("TIME")
    return max(0, int(seconds) * 1_000 - keep_days * DAY_MS) if keep_days else 0


def renew(
    archive: Archive, base: Path, policy: ArchiveSettings, before: int
) -> list[SegmentRecord]:
    """Write the archive anew without the words that are to be gone: of tasks that were forgotten,
    and of those that ended before ``before`` (µs; 0: of none)."""
    change: Change = wordless
    if policy.words:
        change = without_words_of(gone_tasks(archive.client, archive.keys, base, before))
    return archive.renew(policy.segment_events, change, words=policy.words)


T = TypeVar("T")


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def needed(state: State) -> set[str]:
    """Log ids of entries whose words somebody asks for though they are old: prompts and last errors
    of open tasks, their progress documents, what the delegator was taught, why accounts wait."""
    places = {task.log_id for task in state.tasks.values()}
    places |= {task.failed_id for task in state.tasks.values()}
    places |= {
        record.log_id
        for name, record in state.progress.items()
        if name.partition(":")[2] in state.tasks
    }
    places |= {taught.place for taught in state.taught.values()}
    places |= {account.place for account in state.accounts.values() if account.limited}
    places.add(state.meta.overlay.place)
    return places - {"", START}
