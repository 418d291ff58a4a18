"""The audit of a log: one pass over raw entries, with a judgement of each event.

It decodes the JSON itself and keeps its own sums (``ledger``); no fold, no decoder and no record of
the rest of asb is used, so a fault there cannot hide here. What it looks at:

- ``limit``: no dispatch and no extension went beyond a gate in force at its place,
- ``hold``: every hold was settled or released exactly once, and estimated at what was left of it,
- ``attempt``: one dispatch per attempt, in order; ``task``: taken in once, ended once,
- ``alert``: one per scope, window instance and level, saying true figures,
- ``plausible``: no report charged an attempt, or foreign work, more than the bound in force,
- ``correct``: corrections came through the shared intake stream, concerned what had ended, and
  neither a charge nor what is disputed fell below zero,
- ``shape``: an entry that is no event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from services.audit.charges import Charges
from services.audit.ledger import LEVELS, Amounts, Ledger, is_rolling, level, scopes_of, window

FINDINGS_MAX = 1_000  # further ones are counted only
ENDED = ("completed", "failed", "cancelled")


class Finding(NamedTuple):
    """An event that breaks a promise, by its place on the log."""

    log_id: str
    rule: str
    text: str


class Run:
    """A running attempt: its scopes, what is held for it and what it has used of that."""

    __slots__ = ("attempt", "hold", "scopes", "spent", "started")

    def __init__(self, attempt: int, scopes: tuple[str, ...], hold: tuple[int, int]) -> None:
        self.attempt, self.scopes = attempt, scopes
        self.hold, self.spent = list(hold), [0, 0]
        self.started = False

    def left(self) -> tuple[int, int]:
        return max(0, self.hold[0] - self.spent[0]), max(0, self.hold[1] - self.spent[1])


class Job:
    """A task: where it stands, and the attempt that runs."""

    __slots__ = ("attempts", "given", "priority", "project", "run", "status")

    def __init__(self, priority: str, project: str, given: bool) -> None:
        self.priority, self.project, self.given = priority, project, given
        self.attempts = 0
        self.status = "waiting"  # waiting, running, completed, failed, cancelled
        self.run: Run | None = None


class Audit:
    """Feed it every entry of a log in order; then read ``findings``, ``checked`` and the sums."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.jobs: dict[str, Job] = {}
        self.findings: list[Finding] = []
        self.broken = 0
        self.checked: Counter[str] = Counter()
        self.total: list[int] = [0, 0, 0]  # tokens, nano-dollars, tasks: the sum of all charges
        self.by_agent: dict[str, list[int]] = {}
        self.by_day: dict[str, list[int]] = {}
        self.completed: Counter[str] = Counter()  # by agent
        self.clock = 0  # the time of the last event, µs
        self._thresholds: dict[tuple[str, str], int] = {}
        self._zone: ZoneInfo | None = None
        self._said: dict[tuple[str, ...], tuple[int, set[int]]] = {}
        self._log_id = self._source = ""
        self._at = 0
        self.charges = Charges(self._find)
        self._judges: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "policy.changed": self._policy,
            "task.submitted": self._submitted,
            "task.dispatched": self._dispatched,
            "task.started": self._started,
            "hold.extended": self._extended,
            "usage.recorded": self._spent,
            "usage.corrected": self._corrected,
            "progress.updated": self._progressed,
            "task.completed": lambda data: self._end(data, "completed"),
            "task.cancelled": lambda data: self._end(data, "cancelled"),
            "task.failed": lambda data: self._end(
                data, "waiting" if data.get("retry_at") else "failed"
            ),
            "task.requeued": lambda data: self._end(data, "waiting"),
            "alert.raised": self._alert,
        }

    @property
    def open_holds(self) -> int:
        """Holds that are neither settled nor released yet."""
        return sum(job.run is not None for job in self.jobs.values())

    def feed(self, entry: Sequence[Any]) -> None:
        """One raw entry ``[id, [field, value, …]]``, the next on the log."""
        self._log_id = bytes(entry[0]).decode()
        fields = dict(zip(entry[1][0::2], entry[1][1::2], strict=False))
        self.checked["events"] += 1
        try:
            kind, self._at = fields[b"type"].decode(), int(fields[b"at"])
            self._source = fields[b"source"].decode()
            self.clock = self._at
            judge = self._judges.get(kind)
            if judge is not None:
                judge(json.loads(fields[b"data"]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            self._find("shape", f"it is no event this audit understands: {error!r}")

    def _find(self, rule: str, text: str) -> None:
        self.broken += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(self._log_id, rule, text))

    # -- the rules ---------------------------------------------------------------------------------

    def _policy(self, data: Mapping[str, Any]) -> None:
        self.ledger.set_policy(data)
        self.charges.set_policy(data)
        self._zone = ZoneInfo(data.get("timezone", "UTC"))
        self._thresholds = {
            (budget["unit"], budget["window"]): budget.get("threshold_percent", 80)
            for budget in data.get("alert_budgets", ())
        }

    def _submitted(self, data: Mapping[str, Any]) -> None:
        self.checked["tasks"] += 1
        if data["task"] in self.jobs:
            self._find("task", f"task {data['task']} was taken in twice")
            return
        given = bool(data.get("estimate_tokens"))
        self.jobs[data["task"]] = Job(
            data.get("priority", "normal"), data.get("project") or "", given
        )

    def _dispatched(self, data: Mapping[str, Any]) -> None:
        self.checked["dispatches"] += 1
        task, attempt = data["task"], data["attempt"]
        job = self.jobs.get(task)
        if job is None:
            self._find("task", f"task {task} was dispatched and never taken in")
            return
        if job.status != "waiting" or attempt != job.attempts + 1:
            self._find(
                "attempt",
                f"attempt {attempt} of task {task} was dispatched after attempt {job.attempts}, "
                f"while the task was {job.status}",
            )
        if job.run is not None:  # count its hold no longer, so that one fault is found once
            self.ledger.hold(job.run.scopes, _less(*job.run.left(), 1))
        scopes = scopes_of(data["worker"], data["agent"], data["model"], job.project)
        hold = (data["hold_tokens"], data["hold_nanos"])
        self._within("dispatch", task, job.priority, scopes, (*hold, 1))
        job.run, job.attempts, job.status = Run(attempt, scopes, hold), attempt, "running"
        self.charges.begin(task, attempt, hold if job.given else (0, 0))
        self.ledger.hold(scopes, (*hold, 1))

    def _within(
        self, what: str, task: str, priority: str, scopes: tuple[str, ...], asked: Amounts
    ) -> None:
        broken, looked = self.ledger.broken(priority, scopes, asked, self._at)
        self.checked["windows"] += looked
        for words in broken:
            self._find("limit", f"{what} of task {task}: {words}")

    def _started(self, data: Mapping[str, Any]) -> None:
        job = self.jobs.get(data["task"])
        if job is not None and job.run is not None and job.run.attempt == data["attempt"]:
            job.run.started = True

    def _extended(self, data: Mapping[str, Any]) -> None:
        self.checked["extensions"] += 1
        job = self.jobs.get(data["task"])
        run = job.run if job is not None else None
        if job is None or run is None or run.attempt != data["attempt"]:
            self._find("hold", f"a hold of task {data['task']} was raised that is not there")
            return
        before = run.left()
        run.hold[0] += data["tokens"]
        run.hold[1] += data["nanos"]
        after = run.left()
        added = (after[0] - before[0], after[1] - before[1], 0)
        self._within("extension", data["task"], job.priority, run.scopes, added)
        self.ledger.hold(run.scopes, added)

    def _add_charge(self, data: Mapping[str, Any]) -> None:
        """Add what an event books to every scope, and to the sums."""
        charge = data.get("charged")
        if charge is None:
            return
        self.checked["charges"] += 1
        self.charges.add(data, charge, self._log_id)
        amounts = (charge.get("tokens", 0), charge.get("nanos", 0), charge.get("tasks", 0))
        agent = charge.get("agent", "")
        scopes = scopes_of(
            charge.get("worker", ""), agent, charge.get("model", ""), charge.get("project", "")
        )
        window_at = charge.get("window_at") or self._at
        self.ledger.book(scopes, window_at, amounts)
        day = self._day(charge.get("day_at") or window_at)
        sums = self.by_agent.setdefault(agent, [0, 0, 0]), self.by_day.setdefault(day, [0, 0, 0])
        for i, amount in enumerate(amounts):
            self.total[i] += amount
            for total in sums:
                total[i] += amount

    def _day(self, at: int) -> str:
        return datetime.fromtimestamp(at // 1_000_000, self._zone or UTC).date().isoformat()

    def _progressed(self, data: Mapping[str, Any]) -> None:
        if data.get("completes"):
            self.completed[data.get("agent", "")] += 1
        if data.get("charged"):
            self._spent(data)

    def _spent(self, data: Mapping[str, Any]) -> None:
        self._add_charge(data)
        job = self.jobs.get(data.get("task", ""))
        if job is not None and job.run is not None and job.run.attempt == data.get("attempt", 0):
            self._eat(job.run, data["charged"])

    def _corrected(self, data: Mapping[str, Any]) -> None:
        """Late usage, or an operator's correction: of what has ended, through the stream that only
        operators write to where there are several."""
        if not data.get("action"):
            self._spent(data)
            return
        self.checked["corrections"] += 1
        what = (
            f"{data['action']} of attempt {data.get('attempt', 0)} of task {data.get('task', '')}"
        )
        if self._source.split(":")[1:] != ["intake"]:
            self._find("correct", f"{what} came through {self._source}")
        job = self.jobs.get(data.get("task", ""))
        run = job.run if job is not None else None
        if run is not None and run.attempt == data.get("attempt", 0):
            self._find("correct", f"{what}: it still ran")
        self._add_charge(data)

    def _eat(self, run: Run, charged: Mapping[str, Any]) -> None:
        """Usage eats the hold, and never makes it negative."""
        before = run.left()
        run.spent[0] += charged.get("tokens", 0)
        run.spent[1] += charged.get("nanos", 0)
        after = run.left()
        self.ledger.hold(run.scopes, (after[0] - before[0], after[1] - before[1], 0))

    def _end(self, data: Mapping[str, Any], status: str) -> None:
        self._add_charge(data)
        job = self.jobs.get(data["task"])
        if job is None:
            self._find("task", f"task {data['task']} ended and was never taken in")
            return
        attempt = data.get("attempt", 0)
        if data.get("stale"):
            self.checked["late reports"] += 1
            return
        if job.status in ENDED:
            self._find("task", f"task {data['task']} was {job.status}, and ends again")
        elif attempt != job.attempts:
            self._find(
                "attempt", f"attempt {attempt} of task {data['task']} ends, not {job.attempts}"
            )
        elif job.run is not None:
            self._release(data, job.run)
        if job.run is not None:
            self.ledger.hold(job.run.scopes, _less(*job.run.left(), 1))
        job.run, job.status = None, status
        if status == "completed":
            charged: Mapping[str, Any] = data.get("charged") or {}
            self.completed[charged.get("agent", "")] += 1

    def _release(self, data: Mapping[str, Any], run: Run) -> None:
        """How a hold ends: settled with the last usage, or released where nothing was begun, or its
        worker says that no model was called."""
        charge: Mapping[str, Any] = data.get("charged") or {}
        left = run.left()
        if charge.get("tasks"):
            self.checked["holds settled"] += 1
            if (
                charge.get("estimated")
                and (charge.get("tokens", 0), charge.get("nanos", 0)) != left
            ):
                self._find(
                    "hold",
                    f"task {data['task']}: {charge.get('tokens', 0):,} tokens and "
                    f"{charge.get('nanos', 0):,} "
                    f"nano-dollars were estimated where {left[0]:,} and {left[1]:,} were held",
                )
            return
        self.checked["holds released"] += 1
        reported: Mapping[str, Any] = data.get("reported") or {}
        if any(run.spent) or (run.started and reported.get("calls") != 0):
            self._find(
                "hold", f"task {data['task']} had begun, and its hold was released unsettled"
            )

    def _alert(self, data: Mapping[str, Any]) -> None:
        self.checked["alerts"] += 1
        what = (data["kind"], data["scope"], data["unit"], data["window"])
        rank = LEVELS.index(data["level"])
        name = f"{data['level']} of {data['unit']}/{data['window']} of {data['scope']}"
        instance, ranks = self._said.get(what, (0, set[int]()))
        if instance != data["instance"]:
            ranks = set[int]()
        if rank in ranks:
            self._find("alert", f"{name} was said before for this window")
        self._said[what] = (data["instance"], ranks | {rank})
        start = window(data["window"], self._at)[0]
        if not is_rolling(data["window"]) and data["instance"] != start:
            self._find("alert", f"{name} names a window that is not the present one")
        used, held = self.ledger.standing(data["scope"], data["unit"], data["window"], self._at)
        amount = used + held if data["kind"] == "level" else used
        if amount != data["usage"] or not self._reached(data, amount):
            self._find(
                "alert", f"{name} says {data['usage']:,} of {data['budget']:,}; it is {amount:,}"
            )

    def _reached(self, data: Mapping[str, Any], amount: int) -> bool:
        if data["kind"] == "level":
            return level(amount, data["budget"]) == data["level"]
        percent = self._thresholds.get((data["unit"], data["window"]), 80)
        return 100 * amount >= percent * data["budget"]


def _less(tokens: int, nanos: int, tasks: int) -> Amounts:
    return -tokens, -nanos, -tasks
