"""Every struct that a state is made of and that its encoding holds. No folds, no indexes."""

from projections.records.accounts import ProviderAccount
from projections.records.budgets import Bucket, Raised, Scope
from projections.records.charges import NO_PARTS, ChargedAttempt, Mark, Parts
from projections.records.meta import Meta
from projections.records.progress import Progress
from projections.records.routing import Overlay, Routed, Taught
from projections.records.snapshot import FORMAT, RECORDS, Snapshot
from projections.records.tallies import Difference, Histogram, Returned, Tallies
from projections.records.tasks import (
    BACKOFF,
    BLOCKED,
    BLOCKS_KEPT,
    CANCELLED,
    COMPLETED,
    DISPATCHED,
    FAILED,
    OUTCOMES_BLOCK,
    QUEUED,
    RUNNING,
    STARTED,
    SUBMITTED,
    Block,
    Outcome,
    PastAttempt,
    TaskRecord,
)
from projections.records.usage import Cell, Flagged, Issued, Learnt
from projections.records.workers import ALIVE, LEFT, LOST, Worker

__all__ = [
    "ALIVE",
    "BACKOFF",
    "BLOCKED",
    "BLOCKS_KEPT",
    "CANCELLED",
    "COMPLETED",
    "DISPATCHED",
    "FAILED",
    "FORMAT",
    "LEFT",
    "LOST",
    "NO_PARTS",
    "OUTCOMES_BLOCK",
    "QUEUED",
    "RECORDS",
    "RUNNING",
    "STARTED",
    "SUBMITTED",
    "Block",
    "Bucket",
    "Cell",
    "ChargedAttempt",
    "Difference",
    "Flagged",
    "Histogram",
    "Issued",
    "Learnt",
    "Mark",
    "Meta",
    "Outcome",
    "Overlay",
    "Parts",
    "PastAttempt",
    "Progress",
    "ProviderAccount",
    "Raised",
    "Returned",
    "Routed",
    "Scope",
    "Snapshot",
    "Tallies",
    "TaskRecord",
    "Taught",
    "Worker",
]
