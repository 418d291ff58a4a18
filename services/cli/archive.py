"""archive: the log in compressed files with a hash chain, beside Redis."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from projections.format import count
from services.archive.copying import Archive, folder_of
from services.archive.segments import SegmentRecord
from services.cli import options
from services.cli.terminal import note, say, say_json


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

    --verify reads every byte of it: the chain, the mark in Redis, and each entry against the log; a
    flipped byte is found and named. The archive holds the words of tasks and results, as the log
    does: its files are readable by their owner only. Nothing is taken out of Redis. What was
    forgotten since (asb forget) stands in it until --anew writes it again from the log.
    """
    with options.opened() as bus:
        kept = Archive(bus.client, bus.keys, folder_of(bus.settings))
        chosen = bus.settings.archive
        if verify:
            segments = kept.verify()
        else:
            write = kept.renew if anew else kept.extend
            segments = write(chosen.segment_events)
        size = kept.size
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
    note(f"{kept.folder}: {size / 2**20:,.1f} MiB, with the words of tasks and results")


def _words(segments: list[SegmentRecord], verify: bool) -> str:
    if not segments:
        return "nothing is archived yet: asb archive" if verify else "nothing came since"
    entries = sum(segment.entries for segment in segments)
    what = f"{count(entries, 'entry', 'entries')} in {count(len(segments), 'segment')}"
    last = segments[-1].last
    if verify:
        return f"verified: {what} up to {last}, each as it was written and as the log says"
    return f"archived {what}, up to {last}"
