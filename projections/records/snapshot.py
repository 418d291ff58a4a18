"""All records of a state together, and the name of their layout."""

from __future__ import annotations

import zlib

import msgspec

from events.document import Totals
from events.policy import AlertBudget, Guard, Learning, Limit, PolicyChanged, Saving
from events.task import Charge
from projections.records.accounts import ProviderAccount
from projections.records.budgets import Bucket, Raised, Scope
from projections.records.charges import ChargedAttempt, Mark
from projections.records.meta import Meta
from projections.records.progress import Progress
from projections.records.routing import Overlay, Routed, Taught
from projections.records.tallies import Difference, Histogram, Returned, Tallies
from projections.records.tasks import (
    BLOCKS_KEPT,
    OUTCOMES_BLOCK,
    Block,
    Outcome,
    PastAttempt,
    TaskRecord,
)
from projections.records.usage import Cell, Flagged, Issued, Learnt
from projections.records.workers import Worker


class Snapshot(msgspec.Struct):
    """The records of a State, as they are encoded. ``wide``: some number is beyond 64 bits."""

    format: int
    wide: bool
    meta: Meta
    tasks: dict[str, TaskRecord]
    outcomes: list[Block]
    workers: dict[str, Worker]
    scopes: dict[str, Scope]
    lifetime: dict[str, Cell]
    days: dict[str, dict[str, Cell]]
    intakes: dict[str, str]
    raised: dict[str, Raised]
    progress: dict[str, Progress]
    reports: dict[str, Issued]
    learnt: dict[str, Learnt]
    taught: dict[str, Taught]
    routed: dict[str, Routed]
    disputes: dict[str, ChargedAttempt]
    torn: dict[str, int]
    flags: dict[str, Flagged]
    accounts: dict[str, ProviderAccount]
    forgotten: dict[str, str]
    tallies: Tallies


RECORDS = Snapshot.__struct_fields__[2:]  # a State has an attribute for each


def _shape(cls: type[msgspec.Struct]) -> str:
    return f"{cls.__name__}({','.join(f'{f.name}:{f.type}' for f in msgspec.structs.fields(cls))})"


# Names the layout of the records: a snapshot of another layout is not read but rebuilt.
FORMAT = zlib.crc32(
    " ".join(
        _shape(cls)
        for cls in (
            *(Meta, TaskRecord, PastAttempt, Outcome, Worker, Scope, Bucket, Cell, Snapshot),
            *(PolicyChanged, Limit, AlertBudget, Charge, Raised, Progress),
            *(Overlay, Taught, Routed),
            *(Learnt, Saving, Guard, Learning, Issued, Totals, ChargedAttempt, Mark, Flagged),
            *(Tallies, Histogram, Returned, Difference, Block, ProviderAccount),
        )
    ).encode()
    + b" %d %d" % (BLOCKS_KEPT, OUTCOMES_BLOCK)
)
