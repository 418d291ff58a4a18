"""Folding ahead of the log, and back.

The engine decides a turn on "the state so far", so it folds each event as it is decided, before the
append is known to have succeeded. When it did not (a conflict, a lost reply) the turn must leave no
trace. The next turn may be decided on top of one that is still on its way: each has a level of its
own, the oldest is the first to stand, the newest the first to go. While ``entries`` is a list,
folds save what they are about to change; ``rollback`` restores it, newest first. Replay and readers
keep ``entries`` None and pay nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec


class Missing:
    """Marks a key that was not there."""


MISSING = Missing()


class Journal:
    """The journal of the turns that may yet be undone; ``entries`` are those of the newest."""

    __slots__ = ("_older", "_saved", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] | None = None
        self._saved: set[int] = set()  # ids of records which need no (further) copy this turn
        self._older: list[tuple[list[tuple[Any, ...]], set[int]]] = []  # the oldest in front

    def begin(self) -> None:
        """Another turn, on top of those that may yet be undone."""
        if self.entries is not None:
            self._older.append((self.entries, self._saved))
        self.entries = []
        self._saved = set()

    def commit(self) -> None:
        """The oldest turn stands."""
        if self._older:
            del self._older[0]
        else:
            self.entries = None

    def touch(self, record: Any) -> None:
        """Call before changing fields of ``record``, a msgspec Struct."""
        entries = self.entries
        if entries is not None and id(record) not in self._saved:
            self._saved.add(id(record))
            entries.append((record, record.__copy__()))

    def count(self, counts: dict[Any, int], key: Any) -> None:
        """One more of ``key`` in ``counts``, a small map: it is saved whole, once a turn."""
        entries = self.entries
        if entries is not None and id(counts) not in self._saved:
            self._saved.add(id(counts))
            entries.append((counts, counts.copy()))
        counts[key] = counts.get(key, 0) + 1

    def put(self, mapping: dict[Any, Any], key: Any, value: Any) -> None:
        """``mapping[key] = value``. A record that is new in this turn needs no copy."""
        if self.entries is not None:
            # The entry keeps ``value`` alive, so that its id cannot come to mean another record.
            self.entries.append((mapping, key, mapping.get(key, MISSING), value))
            self._saved.add(id(value))
        mapping[key] = value

    def drop(self, mapping: dict[Any, Any], key: Any) -> None:
        if key in mapping:
            if self.entries is not None:
                self.entries.append((mapping, key, mapping[key]))
            del mapping[key]

    def drop_all(self, mapping: dict[Any, Any], keys: Iterable[Any]) -> None:
        gone = [(mapping, key, mapping.pop(key)) for key in keys if key in mapping]
        if self.entries is not None:
            self.entries += gone

    def rollback(self) -> list[msgspec.Struct]:
        """Undo the newest turn; returns the records that were put back (indexes may need them)."""
        restored: list[msgspec.Struct] = []
        for entry in reversed(self.entries or ()):
            if len(entry) == 2:
                record, saved = entry
                if isinstance(saved, dict):  # a small map
                    record.clear()
                    record.update(cast("dict[Any, int]", saved))
                    continue
                for field in record.__struct_fields__:
                    setattr(record, field, getattr(saved, field))
                restored.append(record)
            elif entry[2] is MISSING:
                entry[0].pop(entry[1], None)
            else:
                entry[0][entry[1]] = entry[2]
        if self._older:
            self.entries, self._saved = self._older.pop()
        else:
            self.entries = None
        return restored
