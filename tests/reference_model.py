"""The budget and the queues in plain, slow, obvious Python: the judge of the folds.

It shares no code with ``projections``: it reads events as JSON values, keeps every charge in a
list, sums the list anew for each question, compares with fractions, and finds windows with a
calendar. Nothing in it is fast, cached or clever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEVELS = ("NONE", "WARNING", "SOFT", "HARD", "CRITICAL")
PRIORITIES = ("low", "normal", "high", "critical")
LEAD_S = {"low": 900, "normal": 300, "high": 60, "critical": 0}
KEEP_ROOM_S = 600


class Broken(AssertionError):
    """An event on the log breaks a promise."""


class Charged(NamedTuple):
    """One charge: when, where, how much."""

    when: datetime
    scopes: frozenset[str]
    amounts: dict[str, int]


def moment(at: int) -> datetime:
    return EPOCH + timedelta(microseconds=at)


def window(name: str, now: datetime) -> tuple[datetime, datetime]:
    """The half-open interval of a window at ``now``."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    if name == "hour":
        return hour, hour + timedelta(hours=1)
    if name == "day":
        return day, day + timedelta(days=1)
    if name == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    if name == "month":
        first = day.replace(day=1)
        following = first.replace(year=first.year + 1, month=1)
        return first, following if first.month == 12 else first.replace(month=first.month + 1)
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    number = int(name[:-1])
    return end - (timedelta(hours=number) if name[-1] == "h" else timedelta(minutes=number)), end


def level(amount: int, limit: int) -> str:
    if limit == 0:
        return "CRITICAL"
    share = Fraction(amount, limit)
    if share < Fraction(80, 100):
        return "NONE"
    if share < Fraction(90, 100):
        return "WARNING"
    if share < Fraction(95, 100):
        return "SOFT"
    return "HARD" if share <= Fraction(99, 100) else "CRITICAL"


def passes(priority: str, amount: int, limit: int) -> bool:
    """Whether used + held + asked may stand at ``amount``."""
    if limit == 0:
        return False
    share = Fraction(amount, limit)
    if priority == "low":
        return share < Fraction(90, 100)
    if priority == "normal":
        return share < Fraction(95, 100)
    return share <= (Fraction(99, 100) if priority == "high" else 1)


def scopes_of(worker: str, agent: str, model: str, project: str) -> frozenset[str]:
    named = {"worker": worker, "agent": agent, "model": model, "project": project}
    return frozenset({"global"} | {f"{kind}:{name}" for kind, name in named.items() if name})


class Run:
    """A running attempt and what is held for it."""

    def __init__(self, data: Mapping[str, Any], project: str) -> None:
        self.attempt: int = data["attempt"]
        self.worker: str = data["worker"]
        self.session: str = data["session"]
        self.scopes = scopes_of(self.worker, data["agent"], data["model"], project)
        self.hold = {"tokens": int(data["hold_tokens"]), "money": int(data["hold_nanos"])}
        self.spent = {"tokens": 0, "money": 0}

    def held(self, unit: str) -> int:
        return 1 if unit == "tasks" else max(0, self.hold[unit] - self.spent[unit])


class Job:
    """A task as the log tells it."""

    def __init__(self, data: Mapping[str, Any], at: int, number: int) -> None:
        self.id: str = data["task"]
        self.number = number
        self.priority: str = data.get("priority", "normal")
        self.given = {k: data.get(k) or "" for k in ("kind", "agent", "model", "worker")}
        self.project: str = data.get("project") or ""
        self.estimate_given = bool(data.get("estimate_tokens"))
        self.after = set(data.get("after", ()))
        self.submitted = moment(at)
        self.rank = self.submitted + timedelta(seconds=LEAD_S[self.priority])
        self.agent = self.model = ""
        self.estimate = 0
        self.status = "submitted"  # queued, backoff, running, completed, failed, cancelled
        self.attempts = 0
        self.deferred: set[str] = set()  # limits of which it was said that they never admit it
        self.never_fits = False
        self.run: Run | None = None

    @property
    def queue(self) -> tuple[str, ...]:
        given = (bool(self.given[k]) for k in ("agent", "model", "worker", "kind"))
        marks = "".join(map(str, map(int, given)))
        return self.priority, self.agent, self.model, marks, self.given["worker"], self.project


class Crewman:
    """A worker as the log tells it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.name: str = data["worker"]
        self.session: str = data["session"]
        self.agent: str = data.get("agent") or ""
        self.models: list[str] = list(data.get("models", ()))
        self.capacity: int = data.get("capacity", 1)
        self.alive = True
        self.paused = False
        self.running: set[str] = set()

    def serves(self, agent: str, model: str) -> bool:
        return self.agent in ("", agent) and (not self.models or model in self.models)


class Model:
    """Everything the log says about budgets, and a judgement of each dispatch."""

    def __init__(self) -> None:
        self.policy: dict[str, Any] = {}
        self.charges: list[Charged] = []
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Crewman] = {}
        self.attempts_seen: set[tuple[str, int]] = set()
        self.scopes: set[str] = {"global"}
        self.dispatches = 0

    # -- questions -------------------------------------------------------------------------------

    def used(self, scope: str, unit: str, name: str, now: datetime) -> int:
        start, end = window(name, now)
        return sum(
            b.amounts[unit] for b in self.charges if scope in b.scopes and start <= b.when < end
        )

    def held(self, scope: str, unit: str) -> int:
        runs = [job.run for job in self.jobs.values() if job.run is not None]
        return sum(run.held(unit) for run in runs if scope in run.scopes)

    def limits(self, scope: str) -> dict[tuple[str, str], int]:
        """Limits on ``scope`` by unit and window: those of its kind, then its own."""
        found: dict[tuple[str, str], int] = {}
        for wanted in (scope.partition(":")[0], scope):
            for one in self.policy.get("limits", ()):
                if one["scope"] == wanted:
                    found[one["unit"], one["window"]] = one["amount"]
        return found

    def rows(self, now: int) -> set[tuple[str, str, str, int, int, int, str]]:
        """scope, unit, window, used, held, limit, level of every limited window."""
        when = moment(now)
        named = {one["scope"] for one in self.policy.get("limits", ()) if ":" in one["scope"]}
        found: set[tuple[str, str, str, int, int, int, str]] = set()
        for scope in self.scopes | named:
            for (unit, name), limit in self.limits(scope).items():
                used, held = self.used(scope, unit, name, when), self.held(scope, unit)
                found.add((scope, unit, name, used, held, limit, level(used + held, limit)))
        return found

    def ask(self, job: Job, model: str, scopes: Iterable[str]) -> dict[str, int]:
        """What an attempt asks for; money at the dearest price, rounded half up. What the user did
        not give is at most a share of every limit it touches."""
        price: dict[str, int] = self.policy.get("prices", {}).get(model) or {}
        parts = ("input", "output", "cache_read", "cache_write")
        dearest = max(price.get(part, 0) for part in parts)
        nanos = int(Fraction(job.estimate * dearest, 1_000_000) + Fraction(1, 2))
        asked = {"tokens": job.estimate, "money": nanos, "tasks": 1}
        if not job.estimate_given:
            share: int = self.policy.get("learning", {}).get("share_percent", 50)
            for scope in scopes:
                for (unit, _), limit in self.limits(scope).items():
                    if unit != "tasks":
                        asked[unit] = min(asked[unit], int(Fraction(limit * share, 100)))
        return asked

    def fits(
        self,
        priority: str,
        scopes: Iterable[str],
        asked: Mapping[str, int],
        when: datetime,
        kept: Mapping[str, Mapping[str, int]] | None = None,
        *,
        holds: bool = True,
    ) -> bool:
        if priority == "critical" and self.policy.get("critical_overdraft"):
            return True
        for scope in scopes:
            for (unit, name), limit in self.limits(scope).items():
                amount = self.used(scope, unit, name, when) + asked[unit]
                amount += self.held(scope, unit) if holds else 0
                amount += (kept or {}).get(scope, {}).get(unit, 0)
                if not passes(priority, amount, limit):
                    return False
        return True

    # -- folding ---------------------------------------------------------------------------------

    def feed(self, kind: str, at: int, data: Mapping[str, Any]) -> None:
        """One event, the next on the log."""
        getattr(self, "_" + kind.replace(".", "_"), self._ignore)(at, data)

    def _ignore(self, at: int, data: Mapping[str, Any]) -> None:
        pass

    def _policy_changed(self, at: int, data: Mapping[str, Any]) -> None:
        self.policy = dict(data)

    def _task_submitted(self, at: int, data: Mapping[str, Any]) -> None:
        if data["task"] in self.jobs:
            raise Broken(f"{data['task']} was submitted twice")
        job = Job(data, at, len(self.jobs))
        for other in tuple(job.after):
            status = self.jobs[other].status
            job.never_fits |= status in ("failed", "cancelled")
            if status in ("completed", "failed", "cancelled"):
                job.after.discard(other)
        self.jobs[job.id] = job

    def _task_delegated(self, at: int, data: Mapping[str, Any]) -> None:
        job = self.jobs[data["task"]]
        job.agent, job.model, job.estimate = data["agent"], data["model"], data["estimate_tokens"]
        job.status = "queued"

    def _task_deferred(self, at: int, data: Mapping[str, Any]) -> None:
        """It was said that this task never fits: true of every worker, also of a new one."""
        job = self.jobs[data["task"]]
        if data["limit"] in job.deferred:
            raise Broken(f"{job.id} was deferred twice for {data['limit']}")
        for name in self._might_take(job):
            raise Broken(f"{job.id} was deferred, but would fit on {name}")
        job.deferred.add(data["limit"])

    def _might_take(self, job: Job) -> list[str]:
        """Workers, known or new, on which no limit would refuse it for ever."""
        found: list[str] = []
        for name in (*self.workers, "somebody new"):
            if job.given["worker"] in ("", name):
                scopes = scopes_of(name, job.agent, job.model, job.project)
                asked = self.ask(job, job.model, scopes)
                limits = [(x, y) for s in scopes for x, y in self.limits(s).items()]
                if all(passes(job.priority, asked[unit], most) for (unit, _), most in limits):
                    found.append(name)
        return found

    def _task_dispatched(self, at: int, data: Mapping[str, Any]) -> None:
        job, worker = self.jobs[data["task"]], self.workers[data["worker"]]
        run = Run(data, job.project)
        name = f"attempt {run.attempt} of {job.id}"
        asked = {**run.hold, "tasks": 1}
        if (job.id, run.attempt) in self.attempts_seen or run.attempt != job.attempts + 1:
            raise Broken(f"{name} was dispatched before, or is not the next")
        if job.status != "queued" or job.after or job.never_fits:
            raise Broken(f"{name} was dispatched while {job.status}, waiting for {job.after}")
        if not worker.alive or worker.paused or len(worker.running) >= worker.capacity:
            raise Broken(f"{name} was given to {worker.name}, which is not free")
        if worker.session != run.session or (job.given["worker"] or worker.name) != worker.name:
            raise Broken(f"{name} was given to the wrong worker")
        if not worker.serves(data["agent"], data["model"]):
            raise Broken(f"{name} was given to {worker.name}, which does not serve it")
        expected = self.ask(job, data["model"], run.scopes)
        if asked != expected:
            raise Broken(f"{name} holds {asked}, not {expected}")
        if not self.fits(job.priority, run.scopes, asked, moment(at)):
            raise Broken(f"{name} overshoots: {sorted(self.rows(at))}")
        self.dispatches += 1
        self.attempts_seen.add((job.id, run.attempt))
        job.run, job.status, job.attempts = run, "running", run.attempt
        worker.running.add(job.id)
        self.scopes |= run.scopes

    def _book(self, at: int, data: Mapping[str, Any]) -> None:
        charged = data.get("charged")
        if charged is None:
            return
        names = (charged.get(k, "") for k in ("worker", "agent", "model", "project"))
        scopes = scopes_of(*names)
        amounts = {"tokens": "tokens", "money": "nanos", "tasks": "tasks"}
        self.scopes |= scopes
        self.charges.append(
            Charged(
                moment(charged.get("window_at") or at),
                scopes,
                {unit: charged.get(field, 0) for unit, field in amounts.items()},
            )
        )

    def _usage_recorded(self, at: int, data: Mapping[str, Any]) -> None:
        self._book(at, data)
        job = self.jobs.get(data.get("task", ""))
        if job is not None and job.run is not None and job.run.attempt == data.get("attempt"):
            job.run.spent["tokens"] += data["charged"].get("tokens", 0)
            job.run.spent["money"] += data["charged"].get("nanos", 0)

    _usage_corrected = _usage_recorded

    def _progress_updated(self, at: int, data: Mapping[str, Any]) -> None:
        if data.get("charged"):
            self._usage_recorded(at, data)

    def _hold_extended(self, at: int, data: Mapping[str, Any]) -> None:
        """More is held for a running attempt, under the same check as a dispatch."""
        job = self.jobs[data["task"]]
        run = job.run
        if run is None or run.attempt != data["attempt"]:
            raise Broken(f"{job.id}: a hold of attempt {data['attempt']}, which does not run")
        before = {unit: run.held(unit) for unit in ("tokens", "money")}
        run.hold["tokens"] += data["tokens"]
        run.hold["money"] += data["nanos"]
        added = {unit: run.held(unit) - before[unit] for unit in before}
        run.hold["tokens"] -= data["tokens"]
        run.hold["money"] -= data["nanos"]
        if not self.fits(job.priority, run.scopes, {**added, "tasks": 0}, moment(at)):
            raise Broken(f"{job.id}: its hold was raised beyond a limit")
        run.hold["tokens"] += data["tokens"]
        run.hold["money"] += data["nanos"]

    def _end(self, at: int, data: Mapping[str, Any], status: str) -> None:
        """An attempt ends, or (without one) a waiting task changes its status."""
        self._book(at, data)
        job = self.jobs[data["task"]]
        if data.get("stale"):
            return
        if job.status in ("completed", "failed", "cancelled"):
            raise Broken(f"{job.id} was {job.status} and is {status} again")
        if job.attempts != data.get("attempt", 0):
            raise Broken(f"{job.id}: an end of attempt {data.get('attempt')}, not {job.attempts}")
        if job.run is not None:
            if data.get("session") != job.run.session:
                raise Broken(f"{job.id} was ended by another session")
            self.workers[job.run.worker].running.discard(job.id)
        job.run, job.status = None, status
        if status in ("completed", "failed", "cancelled"):
            for other in self.jobs.values():
                if job.id in other.after:
                    other.after.discard(job.id)
                    other.never_fits |= status != "completed"

    def _task_completed(self, at: int, data: Mapping[str, Any]) -> None:
        self._end(at, data, "completed")

    def _task_cancelled(self, at: int, data: Mapping[str, Any]) -> None:
        self._end(at, data, "cancelled")

    def _task_failed(self, at: int, data: Mapping[str, Any]) -> None:
        self._end(at, data, "backoff" if data.get("retry_at") else "failed")

    def _task_requeued(self, at: int, data: Mapping[str, Any]) -> None:
        self._end(at, data, "queued")

    def _worker_joined(self, at: int, data: Mapping[str, Any]) -> None:
        worker = Crewman(data)
        before = self.workers.get(worker.name)
        kept = {h["task"]: h["attempt"] for h in data.get("holds", ())}
        if before is not None:
            worker.paused = before.paused
            for task in before.running:
                run = self.jobs[task].run
                if run is not None and kept.get(task) == run.attempt:
                    run.session = worker.session
                    worker.running.add(task)
        self.workers[worker.name] = worker

    def _worker_lost(self, at: int, data: Mapping[str, Any]) -> None:
        worker = self.workers[data["worker"]]
        if data.get("session", "") in ("", worker.session):
            worker.alive = False
            worker.running = set()

    _worker_left = _worker_lost

    def _worker_paused(self, at: int, data: Mapping[str, Any]) -> None:
        self.workers[data["worker"]].paused = True

    def _worker_resumed(self, at: int, data: Mapping[str, Any]) -> None:
        self.workers[data["worker"]].paused = False

    # -- under-admission -------------------------------------------------------------------------

    def heads(self) -> list[Job]:
        """The task to try first of each queue, in the order of trying."""
        waiting = [
            job
            for job in self.jobs.values()
            if job.status == "queued" and not job.after and self._might_take(job)
        ]
        waiting.sort(key=lambda job: (job.rank, job.number))
        first: dict[tuple[str, ...], Job] = {}
        for job in waiting:
            first.setdefault(job.queue, job)
        return list(first.values())

    def waiting_although_it_fits(self, now: int) -> list[str]:
        """Heads which a free worker of their route could start now, within every limit.

        Room kept for a head that has waited ten minutes counts against those tried after it.
        """
        found: list[str] = []
        kept: dict[str, dict[str, int]] = {}
        when = moment(now)
        for job in self.heads():
            free = self._free(job)
            if any(self._fits_on(job, worker, when, kept) for worker in free):
                found.append(job.id)
            elif free and when - job.submitted >= timedelta(seconds=KEEP_ROOM_S):
                self._keep(job, when, kept)
        return found

    def _free(self, job: Job) -> list[Crewman]:
        """Free workers that serve the route itself."""
        return [
            w
            for w in self.workers.values()
            if w.alive
            and not w.paused
            and len(w.running) < w.capacity
            and job.given["worker"] in ("", w.name)
            and w.serves(job.agent, job.model)
        ]

    def _fits_on(
        self,
        job: Job,
        worker: Crewman,
        when: datetime,
        kept: Mapping[str, Mapping[str, int]] | None = None,
    ) -> bool:
        scopes = scopes_of(worker.name, worker.agent or job.agent, job.model, job.project)
        return self.fits(job.priority, scopes, self.ask(job, job.model, scopes), when, kept)

    def _keep(self, job: Job, when: datetime, kept: dict[str, dict[str, int]]) -> None:
        """Room is kept for what only running work keeps out."""
        scopes = scopes_of("", job.agent, job.model, job.project)
        asked = self.ask(job, job.model, scopes)
        if not self.fits(job.priority, scopes, asked, when, kept, holds=False):
            return
        for scope in scopes:
            room = kept.setdefault(scope, {"tokens": 0, "money": 0, "tasks": 0})
            for unit, amount in asked.items():
                room[unit] += amount
