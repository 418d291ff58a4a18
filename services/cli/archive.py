"""archive: the log in compressed files with a hash chain, beside Redis."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from projections.format import count
from services.archive.copying import Archive
from services.archive.retention import renew
from services.cli import options
from services.cli.terminal import note, say, say_json
from services.client.bus import Bus
from services.runtime.errors import Refused
from services.store.history import folder_of
from services.store.segments import SegmentRecord


def archive(
    verify: Annotated[
        bool, typer.Option("--verify", help="Add nothing: read all of it and compare.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Write all of it again, without forgotten words.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Copy what came to the log since the last time into the archive, chained by hashes.

    The service `archive` does that by itself before the oldest entries leave Redis; nothing leaves
    by this command. --verify reads every byte: the chain, the mark in Redis, and each entry that is
    still on the log against it; a flipped byte is found and named. What was written for tasks is
    archived only where the setting archive.words says so; its files are readable by their owner
    only. --anew writes all of it again, as that setting is now and without forgotten words.
    """
    with options.opened() as bus:
        kept = Archive(bus.client, bus.keys, folder_of(bus.settings))
        segments = kept.verify() if verify else _written(bus, kept, anew)
        size, words = kept.size, kept.mark is not None and kept.mark.words
    if as_json:
        say_json(
            {
                "folder": str(kept.folder),
                "bytes": size,
                "verified": verify,
                "segments": [msgspec.to_builtins(segment) for segment in segments],
            }
        )
        return
    say(_words(segments, verify))
    held = "with the words of tasks and results" if words else "without what was written"
    note(f"{kept.folder}: {size / 2**20:,.1f} MiB, {held}")


def _written(bus: Bus, kept: Archive, anew: bool) -> list[SegmentRecord]:
    """The segments that were made. Raises Refused where another writes it now."""
    policy = bus.settings.archive
    with kept.locked() as ours:
        if not ours:
            raise Refused("another process writes this archive now", hint="try again")
        if anew:
            before = bus.state().meta.words_before
            return renew(kept, folder_of(bus.settings), policy, before)
        return kept.extend(policy.segment_events, words=policy.words)


def _words(segments: list[SegmentRecord], verify: bool) -> str:
    if not segments:
        return "nothing is archived yet: asb archive" if verify else "nothing came since"
    entries = sum(segment.entries for segment in segments)
    what = f"{count(entries, 'entry', 'entries')} in {count(len(segments), 'segment')}"
    last = segments[-1].last
    if verify:
        return f"verified: {what} up to {last}, each as it was written and as the log says"
    return f"archived {what}, up to {last}"
