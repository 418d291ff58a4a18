"""What is remembered of ended tasks, the last 100,000 at least, by task and by when they ended.

They stand in blocks of 1,000. All but the newest blocks are bytes, as a snapshot holds them, until
somebody asks for a task of theirs: a hundred thousand objects would fill the memory, and lie
scattered all over it once they go. A block is forgotten as a whole; one that nobody touched is
written again as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from projections.journal import Journal
from projections.records import (
    BLOCKS_KEPT,
    COMPLETED,
    OUTCOMES_BLOCK,
    Block,
    Meta,
    Outcome,
)

FRESH = 2  # full blocks that stay objects: what comes late for a task mostly comes soon
PACKED_AT_ONCE = 2  # blocks: so many were read again, at most, while one was filled

_tasks = msgspec.msgpack.Decoder(list[str])
_outcomes = msgspec.msgpack.Decoder(list[Outcome | None], strict=False)


class Outcomes(Mapping[str, Outcome]):
    """The outcomes by task id, the oldest in front."""

    def __init__(self, meta: Meta, blocks: Iterable[Block] = ()) -> None:
        self._meta = meta
        self._known: dict[str, Outcome] = {}  # those of no packed block
        self._order: dict[int, str] = {}  # which of them ended as the n-th of all
        self._packed = {_number(block.first): block for block in blocks}
        self._places: dict[str, int] | None = None  # block of each task that is packed, or was
        self._made: dict[str, dict[bytes, str]] = {}  # "alike": by digest, once somebody asked
        self._unpack(_number(meta.ended))  # the one that fills

    # -- looking up ----------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        outcome = self._known.get(key)
        if outcome is None and self._packed:
            number = self._all_places().get(key)
            if number is not None:
                self._unpack(number)
                outcome = self._known.get(key)
        return default if outcome is None else outcome

    def __getitem__(self, key: str) -> Outcome:
        outcome = self.get(key)
        if outcome is None:
            raise KeyError(key)
        return cast("Outcome", outcome)

    def __contains__(self, key: object) -> bool:
        if key in self._known or not self._packed:
            return key in self._known
        return self._all_places().get(cast("str", key)) in self._packed

    def __len__(self) -> int:
        self._unpack_repeated()
        return len(self._known) + sum(block.count for block in self._packed.values())

    def __iter__(self) -> Iterator[str]:
        self.unpack_all()
        return iter(sorted(self._known, key=lambda task: self._known[task].n))

    def newest(self) -> Iterator[tuple[str, Outcome]]:
        """Each with its task, the one that ended last in front. Reads no further than asked."""
        first = self._ends_of(_oldest(_number(self._meta.ended))).start
        for n in range(self._meta.ended, first - 1, -1):
            self._unpack(_number(n))
            task = self._order[n]
            outcome = self._known.get(task)
            if outcome is not None and outcome.n == n:
                yield task, outcome

    def alike(self, journal: Journal, digest: bytes) -> str | None:
        """The newest task of this digest that was completed."""
        if _ALIKE not in self._made:
            completed = (t for t, outcome in self.items() if outcome.status == COMPLETED)
            journal.put(self._made, _ALIKE, {self._known[task].digest: task for task in completed})
        return self._made[_ALIKE].get(digest)

    # -- changing ------------------------------------------------------------------------------

    def end(self, journal: Journal, task: str, outcome: Outcome) -> None:
        """``task`` ended, as the newest; the oldest are forgotten where there are too many."""
        if (_ALIKE in self._made or journal.entries is not None) and task in self:
            self.get(task)  # undoing brings back what was there, so it has to be unpacked
            journal.drop(self._made, _ALIKE)  # what it was alike before is to be looked for
        journal.put(self._known, task, outcome)
        journal.put(self._order, outcome.n, task)
        if outcome.status == COMPLETED and _ALIKE in self._made:
            journal.put(self._made[_ALIKE], outcome.digest, task)
        if (outcome.n - 1) % OUTCOMES_BLOCK == 0:
            self._begin(journal, _number(outcome.n))

    def _begin(self, journal: Journal, number: int) -> None:
        """A block begins: the oldest is forgotten, and older ones are packed by who decides. A
        replay would lose a seventh of its speed: its objects lie side by side without that."""
        if number > BLOCKS_KEPT:
            self._forget(journal, number - BLOCKS_KEPT - 1)
        if journal.entries is not None:
            older = range(_oldest(number), number - FRESH)
            loose = [each for each in older if each not in self._packed]
            for each in loose[:PACKED_AT_ONCE]:
                self._pack(journal, each)

    def _forget(self, journal: Journal, number: int) -> None:
        if _ALIKE in self._made:
            self._unpack(number)  # for its digests
        ends, tasks = self._ends_of(number), self._tasks_of(number)
        places, gone = self._places or {}, self._current(ends, tasks)
        if (alike := self._made.get(_ALIKE)) is not None:
            digests = [(self._known[task].digest, task) for task in gone]
            journal.drop_all(alike, [made for made, task in digests if alike.get(made) == task])
        journal.drop_all(self._known, gone)
        journal.drop_all(self._order, ends)
        journal.drop_all(places, [task for task in tasks if places.get(task) == number])
        journal.drop(self._packed, number)

    def _pack(self, journal: Journal, number: int) -> None:
        """Turn a full block to bytes, and its tasks' ids to copies that lie side by side."""
        ends, places = self._ends_of(number), self._all_places()
        last = {places.get(task, number) for task in self._tasks_of(number)}
        for before in last:
            if before < number:
                self._unpack(before)  # what it says of a task that ended again no longer holds
        try:
            block = self._block(number, msgspec.msgpack.encode)
        except OverflowError:
            return  # sums beyond 64 bits stay objects
        gone = self._current(ends, _tasks.decode(block.tasks))
        journal.put(self._packed, number, block)
        journal.drop_all(self._known, gone)
        journal.drop_all(self._order, ends)
        places.update(dict.fromkeys(gone, number))

    def _current(self, ends: range, tasks: list[str]) -> list[str]:
        """Those of ``tasks``, all of one loose block, that did not end again later."""
        known = self._known
        return [t for n, t in zip(ends, tasks, strict=True) if (o := known.get(t)) and o.n == n]

    def _ends_of(self, number: int) -> range:
        """Which ends a block holds: a thousand, or so far fewer."""
        first = number * OUTCOMES_BLOCK + 1
        return range(first, min(first + OUTCOMES_BLOCK, self._meta.ended + 1))

    def _tasks_of(self, number: int) -> list[str]:
        """The tasks of a block, in the order they ended."""
        block = self._packed.get(number)
        if block is not None:
            return _tasks.decode(block.tasks)
        return [self._order[n] for n in self._ends_of(number)]

    # -- blocks --------------------------------------------------------------------------------

    def blocks(self, pack: Callable[[Any], bytes] = msgspec.msgpack.encode) -> list[Block]:
        """All of them, as a snapshot holds them; the same state gives the same bytes."""
        self._unpack_repeated()
        last = _number(self._meta.ended)
        numbers = range(_oldest(last), last + 1)
        return [self._packed.get(number) or self._block(number, pack) for number in numbers]

    def _block(self, number: int, pack: Callable[[Any], bytes]) -> Block:
        ends, tasks = self._ends_of(number), self._tasks_of(number)
        known = (self._known.get(task) for task in tasks)
        outcomes = [o if o and o.n == n else None for n, o in zip(ends, known, strict=True)]
        count = len(outcomes) - outcomes.count(None)
        return Block(ends[0], count, msgspec.Raw(pack(tasks)), msgspec.Raw(pack(outcomes)))

    def unpack_all(self) -> None:
        """Nothing stays as bytes."""
        for number in sorted(self._packed):
            self._unpack(number)

    def _unpack(self, number: int) -> None:
        block = self._packed.pop(number, None)
        if block is None:
            return
        pairs = zip(_tasks.decode(block.tasks), _outcomes.decode(block.ends), strict=True)
        for n, (task, outcome) in enumerate(pairs, block.first):
            self._order[n] = task
            if outcome is not None:
                self._known.setdefault(task, outcome)  # one that ended again since counts

    def _unpack_repeated(self) -> None:
        """What ended again since its block was packed stands twice until that is unpacked."""
        if self._packed:
            places = self._all_places()
            for number in {places[task] for task in self._known.keys() & places.keys()}:
                self._unpack(number)

    def _all_places(self) -> dict[str, int]:
        if self._places is None:
            self._places = {}
            for number, block in sorted(self._packed.items()):
                self._places.update(dict.fromkeys(_tasks.decode(block.tasks), number))
        return self._places


_ALIKE = "alike"


def _number(n: int) -> int:
    """Of the block that holds the n-th end."""
    return (n - 1) // OUTCOMES_BLOCK


def _oldest(number: int) -> int:
    """The oldest block that is remembered while block ``number`` fills."""
    return max(0, number - BLOCKS_KEPT)
