"""Words leave the archive as they left the log: of tasks that were forgotten, or kept for as long
as words may be."""

from __future__ import annotations

from pathlib import Path

from events.keys import Keys
from services.archive.copying import Change, wordless
from services.store.client import SyncClient
from services.store.expiry import ENDS, ends_before
from services.store.history import History, task_of_entry
from services.store.segments import Entry


def gone_tasks(client: SyncClient, keys: Keys, base: Path, before: int) -> set[str]:
    """The tasks whose words are to be gone: those that were forgotten, and, unless ``before`` is 0,
    those that ended before it (µs)."""
    forgotten, expired = set[str](), set[str]()
    for batch in History(client, keys, base).entries():
        for entry in batch:
            kind = entry[1][1] if len(entry[1]) >= 12 else b""
            if kind == b"task.forgotten":
                forgotten.add(task_of_entry(entry))
            elif kind in ENDS and before and ends_before(entry, before):
                expired.add(task_of_entry(entry))
            elif kind == b"task.submitted":
                expired.discard(task_of_entry(entry))
    return forgotten | expired


def without_words_of(tasks: set[str]) -> Change:
    """Entries as they are, but those about ``tasks`` without their words."""

    def change(entry: Entry) -> Entry:
        return wordless(entry) if task_of_entry(entry) in tasks else entry

    return change
