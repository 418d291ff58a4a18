"""One good example of every payload, to be changed where a test cares: ``started(attempt=2)``."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from events.account import AccountLimited, AccountReleased
from events.clock import ClockConfirmed, ClockStepped
from events.envelope import Payload
from events.log import LogForeignEntries, LogTrimmed, LogWentBack, WordsRemoved
from events.money import Price
from events.policy import (
    AlertBudget,
    AlertRaised,
    Guard,
    Learning,
    Limit,
    PolicyChanged,
    ReportIssued,
    Saving,
)
from events.routing import DelegatorLearnt, Example, TaskEscalated
from events.server import RedisEvicts, RedisKeeps
from events.task import (
    Candidate,
    Charge,
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskDeferred,
    TaskDelegated,
    TaskDelivered,
    TaskDispatched,
    TaskFailed,
    TaskForgotten,
    TaskRequeued,
    TaskStarted,
    TaskSubmitted,
)
from events.usage import (
    HoldExtended,
    HoldRefused,
    ProgressUpdated,
    UsageCompared,
    UsageCorrected,
    UsageRecorded,
)
from events.worker import (
    HeldAttempt,
    IntakeOpened,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPaused,
    WorkerRefused,
    WorkerResumed,
    WorkerState,
    WorkerTwin,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_795_348_800 * SECOND  # 2026-11-22 12:00:00 UTC, a Sunday

HAIKU = Price(1_000_000_000, 1_000_000_000, 1_000_000_000, 1_000_000_000, flat=True)
SONNET = Price(9_000_000_000, 9_000_000_000, 9_000_000_000, 9_000_000_000, flat=True)
OPUS = Price(5_000_000_000, 25_000_000_000, 500_000_000, 6_250_000_000)
PRICES = {"haiku": HAIKU, "sonnet": SONNET, "opus-full": OPUS, "local": Price()}


def policy(*limits: Limit, **changes: Any) -> PolicyChanged:
    """A policy with these limits and the example prices."""
    return replace(PolicyChanged(limits, PRICES), **changes)


def limit(scope: str, unit: str, window: str, amount: int) -> Limit:
    return Limit(scope, unit, window, amount)


def submitted(task: str = "t1", **changes: Any) -> TaskSubmitted:
    return replace(TaskSubmitted(task, "Fix the login form"), **changes)


def delegated(task: str = "t1", **changes: Any) -> TaskDelegated:
    made = TaskDelegated(
        task,
        "coding",
        "codex",
        "sonnet",
        "medium",
        1000,
        "it speaks of fixing",
        (Candidate("coding", "codex", "sonnet", 7),),
    )
    return replace(made, **changes)


def deferred(task: str = "t1", **changes: Any) -> TaskDeferred:
    return replace(TaskDeferred(task, "more than the limit ever allows"), **changes)


def dispatched(task: str = "t1", **changes: Any) -> TaskDispatched:
    made = TaskDispatched(
        task, 1, "w1", "5-0", "codex", "sonnet", 1000, 9_000_000, NOON + 7200 * SECOND
    )
    return replace(made, **changes)


def delivered(task: str = "t1", **changes: Any) -> TaskDelivered:
    return replace(TaskDelivered(task, 1, "5-0"), **changes)


def started(task: str = "t1", **changes: Any) -> TaskStarted:
    return replace(TaskStarted(task, 1, "5-0"), **changes)


def cancel_requested(task: str = "t1", **changes: Any) -> TaskCancelRequested:
    return replace(TaskCancelRequested(task, "no longer needed"), **changes)


def charge(tokens: int = 600, nanos: int = 5_400_000, **changes: Any) -> Charge:
    made = Charge(
        "codex", "sonnet", "w1", "", "coding", input_tokens=tokens, tokens=tokens, nanos=nanos
    )
    return replace(made, **{"tasks": 1, "book": 1, "meter": "driver", **changes})


def completed(task: str = "t1", **changes: Any) -> TaskCompleted:
    return replace(TaskCompleted(task, 1, "5-0", False, charge()), **changes)


def failed(task: str = "t1", **changes: Any) -> TaskFailed:
    return replace(TaskFailed(task, 1, "5-0", False, charge(), "exit code 1"), **changes)


def cancelled(task: str = "t1", **changes: Any) -> TaskCancelled:
    return replace(TaskCancelled(task, 1, "5-0", False, charge(), "as asked"), **changes)


def requeued(task: str = "t1", **changes: Any) -> TaskRequeued:
    return replace(TaskRequeued(task, 1, "5-0", False, charge(), "worker w1 was lost"), **changes)


def hold_extended(task: str = "t1", **changes: Any) -> HoldExtended:
    return replace(HoldExtended(task, 1, 500, 4_500_000), **changes)


def hold_refused(task: str = "t1", **changes: Any) -> HoldRefused:
    made = HoldRefused(task, 1, "5-0", "w1", "warn", "tokens/hour of global allows no more")
    return replace(made, **changes)


def usage_recorded(task: str = "t1", **changes: Any) -> UsageRecorded:
    made = UsageRecorded("codex", charge(200, 1_800_000, tasks=0), "sonnet", task, 1, "driver")
    return replace(made, **changes)


def usage_corrected(task: str = "t1", **changes: Any) -> UsageCorrected:
    made = UsageCorrected("codex", charge(-100, -900_000, tasks=0), task, 1)
    return replace(made, **changes)


def progress_updated(task: str = "t1", **changes: Any) -> ProgressUpdated:
    return replace(ProgressUpdated("codex", task, msgspec.Raw(b'{"percent": 40}')), **changes)


def joined(worker: str = "w1", **changes: Any) -> WorkerJoined:
    return replace(WorkerJoined(worker, "5-0"), **changes)


def refused(worker: str = "w1", **changes: Any) -> WorkerRefused:
    return replace(WorkerRefused(worker, "6-0", "5-0", NOON), **changes)


def left(worker: str = "w1", **changes: Any) -> WorkerLeft:
    return replace(WorkerLeft(worker, "5-0"), **changes)


def lost(worker: str = "w1", **changes: Any) -> WorkerLost:
    return replace(WorkerLost(worker, "5-0", "no heartbeat for 61 s"), **changes)


def paused(worker: str = "w1", **changes: Any) -> WorkerPaused:
    return replace(WorkerPaused(worker, "lunch"), **changes)


def agent_state(worker: str = "w1", state: str = "permission") -> WorkerState:
    return WorkerState(worker, state, 1_795_348_800_000_000, "hook", "Bash")


def twin(worker: str = "w1", task: str = "t1") -> WorkerTwin:
    return WorkerTwin(worker, task, 1, "process 7 is at it")


def resumed(worker: str = "w1") -> WorkerResumed:
    return WorkerResumed(worker)


def intake_opened(name: str = "w1") -> IntakeOpened:
    return IntakeOpened(f"asb:intake:{name}", name)


def alert_raised(**changes: Any) -> AlertRaised:
    made = AlertRaised("level", "global", "tokens", "hour", NOON, "WARNING", 410_000, 500_000)
    return replace(made, **changes)


def report_issued(**changes: Any) -> ReportIssued:
    return replace(ReportIssued("2026-11-22", 1, {"tokens": 600}), **changes)


def learnt(**changes: Any) -> DelegatorLearnt:
    overlay = {"audit log": "b+12g-8"}
    examples = (Example("coding"), Example("documentation", "t1"))
    texts = ("Add an audit log", "")
    why = "task t1 was coding"
    made = DelegatorLearnt(overlay, "0123", "1-1", 2, examples, texts, ("1-1/0",), why)
    return replace(made, **changes)


def escalated(**changes: Any) -> TaskEscalated:
    made = TaskEscalated("t1", 3, "claude", "sonnet", "3 of 3 attempts failed")
    return replace(made, **changes)


def went_back(**changes: Any) -> LogWentBack:
    return replace(LogWentBack("1795348800005-0", "1795348800002-1"), **changes)


def trimmed(**changes: Any) -> LogTrimmed:
    return replace(LogTrimmed("1795348800005-0"), **changes)


def words_removed(**changes: Any) -> WordsRemoved:
    return replace(WordsRemoved("1795348800007-0", 0, 2, 9), **changes)


def forgotten(**changes: Any) -> TaskForgotten:
    return replace(TaskForgotten("t1"), **changes)


def foreign_entries(**changes: Any) -> LogForeignEntries:
    return replace(LogForeignEntries(2, "1795348800005-0", "1795348800006-0"), **changes)


def every_payload() -> dict[str, Payload]:
    """An example of each wire type, with the optional fields filled."""
    full_policy = policy(
        limit("global", "tokens", "hour", 500_000),
        limit("worker", "money", "5h", 5_000_000_000),
        alert_budgets=(AlertBudget("tokens", "day", 150_000),),
        cache_read_weight_percent=10,
        timezone="Europe/Berlin",
        critical_overdraft=True,
        min_priority="normal",
        saving=Saving("SOFT", "haiku", ("ui",)),
        guard=Guard(25, "cancel"),
        learning=Learning(10, 80, 40),
        reason="an example",
    )
    found: list[Payload] = [
        ClockStepped(26 * HOUR, NOON + 26 * HOUR),
        ClockConfirmed("the time server was wrong"),
        submitted(kind="coding", agent="codex", model="sonnet", worker="w1", project="shop"),
        delegated(),
        deferred(),
        dispatched(why="no live worker serves comet with haiku"),
        delivered(),
        started(),
        cancel_requested(),
        completed(),
        failed(retry_at=NOON + 5 * SECOND),
        cancelled(),
        requeued(),
        hold_extended(),
        hold_refused(),
        usage_recorded(),
        usage_corrected(),
        UsageCompared("codex", "t1", 1, "driver", 5_000, "telemetry", 3_000, alert=True),
        progress_updated(),
        joined(
            agent="codex",
            models=("sonnet",),
            holds=(HeldAttempt("t1", 1),),
            instance="b0a1",
        ),
        refused(),
        left(),
        lost(taken_by="6-0"),
        paused(),
        resumed(),
        agent_state(),
        twin(),
        intake_opened(),
        full_policy,
        learnt(),
        escalated(),
        alert_raised(),
        report_issued(),
        went_back(),
        trimmed(),
        words_removed(),
        forgotten(),
        foreign_entries(),
        AccountLimited("claude@host", NOON + HOUR, 2, True, "w1", "t1", "5-hour limit"),
        AccountReleased("claude@host", True, "by hand"),
        RedisEvicts("allkeys-lru", 1_129, "f00d"),
        RedisKeeps(1_129, "f00d"),
    ]
    return {payload.type: payload for payload in found}
