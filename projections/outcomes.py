"""What is remembered of ended tasks: the last 100,000, by task and in the order they ended.

A snapshot holds them in blocks. Those of one that was loaded stay as bytes until somebody asks for
a task of theirs, which most who look at the bus never do: reading all would take them longer than
everything else. Blocks that nobody touched are written again as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from projections.journal import Journal
from projections.records import (
    COMPLETED,
    OUTCOMES_BLOCK,
    OUTCOMES_KEPT,
    Block,
    Meta,
    Outcome,
)

_tasks = msgspec.msgpack.Decoder(list[str])
_ends = msgspec.msgpack.Decoder(list[Outcome | None], strict=False)


class Outcomes(Mapping[str, Outcome]):
    """The outcomes by task id, the oldest in front."""

    def __init__(self, meta: Meta, blocks: Iterable[Block] = ()) -> None:
        self._meta = meta
        self._known: dict[str, Outcome] = {}
        self._order: dict[int, str] = {}  # which task ended as the n-th of all
        self._unread = {_number(block.first): block for block in blocks}
        self._places: dict[str, int] | None = None  # block of each task, of those not read at first
        self._made: dict[str, dict[bytes, str]] = {}  # "alike": by digest, once somebody asked

    # -- looking up ----------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        outcome = self._known.get(key)
        if outcome is None and self._unread:
            number = self._unread_places().get(key)
            if number is not None:
                self._read(number)
                outcome = self._known.get(key)
        return default if outcome is None else outcome

    def __getitem__(self, key: str) -> Outcome:
        outcome = self.get(key)
        if outcome is None:
            raise KeyError(key)
        return cast("Outcome", outcome)

    def __contains__(self, key: object) -> bool:
        if key in self._known or not self._unread:
            return key in self._known
        # What a block held that has been read since is known, or was forgotten.
        return self._unread_places().get(cast("str", key)) in self._unread

    def __len__(self) -> int:
        self._read_repeated()
        return len(self._known) + sum(block.count for block in self._unread.values())

    def __iter__(self) -> Iterator[str]:
        self.read_all()
        return iter(sorted(self._known, key=lambda task: self._known[task].n))

    def newest(self) -> Iterator[tuple[str, Outcome]]:
        """Each with its task, the one that ended last in front. Reads no further than asked."""
        for n in range(self._meta.ended, self._first - 1, -1):
            self._read(_number(n))
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
        """``task`` ended, as the newest; the oldest is forgotten where there are too many."""
        if (_ALIKE in self._made or journal.entries is not None) and task in self:
            self.get(task)  # undoing brings back what was there, so it has to be read
            journal.drop(self._made, _ALIKE)  # what it was alike before is to be looked for
        if self._unread:
            self._read(_number(outcome.n))
        journal.put(self._known, task, outcome)
        journal.put(self._order, outcome.n, task)
        if outcome.status == COMPLETED and _ALIKE in self._made:
            journal.put(self._made[_ALIKE], outcome.digest, task)
        if outcome.n > OUTCOMES_KEPT:
            self._forget(journal, outcome.n - OUTCOMES_KEPT)

    def _forget(self, journal: Journal, n: int) -> None:
        if self._unread:
            self._read(_number(n))
        task = self._order.get(n)
        if task is None:
            return
        journal.drop(self._order, n)
        outcome = self._known.get(task)
        if outcome is None or outcome.n != n:  # it ended again later
            return
        journal.drop(self._known, task)
        alike = self._made.get(_ALIKE, {})
        if alike.get(outcome.digest) == task:
            journal.drop(alike, outcome.digest)

    # -- blocks --------------------------------------------------------------------------------

    @property
    def _first(self) -> int:
        return max(1, self._meta.ended - OUTCOMES_KEPT + 1)

    def blocks(self, pack: Callable[[Any], bytes] = msgspec.msgpack.encode) -> list[Block]:
        """All of them, as a snapshot holds them; the same state gives the same bytes."""
        self._read_repeated()
        last = self._meta.ended
        numbers = range(_number(self._first), _number(last) + 1) if last else ()
        return [self._unread.get(number) or self._block(number, pack) for number in numbers]

    def _block(self, number: int, pack: Callable[[Any], bytes]) -> Block:
        first = max(self._first, number * OUTCOMES_BLOCK + 1)
        end = min(self._meta.ended, (number + 1) * OUTCOMES_BLOCK) + 1
        tasks = [self._order[n] for n in range(first, end)]
        known = (self._known.get(task) for task in tasks)
        ends = [o if o and o.n == n else None for n, o in enumerate(known, first)]
        count = len(ends) - ends.count(None)
        return Block(first, count, msgspec.Raw(pack(tasks)), msgspec.Raw(pack(ends)))

    def read_all(self) -> None:
        """Nothing stays as bytes."""
        for number in sorted(self._unread):
            self._read(number)

    def _read(self, number: int) -> None:
        block = self._unread.pop(number, None)
        if block is None:
            return
        pairs = zip(_tasks.decode(block.tasks), _ends.decode(block.ends), strict=True)
        for n, (task, outcome) in enumerate(pairs, block.first):
            self._order[n] = task
            if outcome is not None:
                self._known.setdefault(task, outcome)  # one that ended again since counts
        if not self._unread:
            self._places = None

    def _read_repeated(self) -> None:
        """What ended again since it was loaded stands twice until its block is read."""
        if self._unread:
            places = self._unread_places()
            for number in {places[task] for task in self._known.keys() & places.keys()}:
                self._read(number)

    def _unread_places(self) -> dict[str, int]:
        if self._places is None:
            self._places = {}
            for number, block in sorted(self._unread.items()):
                self._places.update(dict.fromkeys(_tasks.decode(block.tasks), number))
        return self._places


_ALIKE = "alike"


def _number(n: int) -> int:
    """Of the block that holds the n-th end."""
    return (n - 1) // OUTCOMES_BLOCK
