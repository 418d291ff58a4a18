"""Plain sums for the audit: what was charged and held, by scope, and which limits there are.

Nothing here comes from the folds. Charges are added up by minute and hour; a window is a sum over
them. The running sum of a calendar window is kept while the window lasts, so a long log is walked
in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

MINUTE = 60_000_000
HOUR = 60 * MINUTE
UNITS = ("tokens", "money", "tasks")
PRIORITIES = ("low", "normal", "high", "critical")
LEVELS = ("NONE", "WARNING", "SOFT", "HARD", "CRITICAL")
SCOPES_MAX = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Amounts = tuple[int, int, int]  # tokens, nano-dollars, tasks


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def window(name: str, at: int) -> tuple[int, int]:
    """The half-open interval of a window at ``at``, µs."""
    if name[-1] in "hm" and name[:-1].isdecimal():
        end = at - at % MINUTE + MINUTE
        return end - int(name[:-1]) * (HOUR if name[-1] == "h" else MINUTE), end
    now = EPOCH + timedelta(microseconds=at)
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    if name == "hour":
        first, last = hour, hour + timedelta(hours=1)
    elif name == "day":
        first, last = day, day + timedelta(days=1)
    elif name == "week":
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1)
    return micros(first), micros(last)


def is_rolling(name: str) -> bool:
    return name[-1] in "hm" and name[:-1].isdecimal()


def passes(priority: str, amount: int, limit: int) -> bool:
    """Whether used + held + asked may stand at ``amount``; a limit of 0 lets nothing pass."""
    if limit <= 0:
        return False
    if priority == "low":
        return 100 * amount < 90 * limit
    if priority == "normal":
        return 100 * amount < 95 * limit
    return 100 * amount <= (99 if priority == "high" else 100) * limit


def level(amount: int, limit: int) -> str:
    if limit <= 0 or 100 * amount > 99 * limit:
        return "CRITICAL"
    for name, percent in (("HARD", 95), ("SOFT", 90), ("WARNING", 80)):
        if 100 * amount >= percent * limit:
            return name
    return "NONE"


class OpenAttempt:
    """The sum of one calendar window, while it lasts."""

    __slots__ = ("amounts", "end", "start")

    def __init__(self, start: int, end: int, amounts: list[int]) -> None:
        self.start, self.end, self.amounts = start, end, amounts


class Account:
    """One scope: charges by minute and hour, and what is held."""

    __slots__ = ("held", "hours", "minutes", "running")

    def __init__(self) -> None:
        self.minutes: dict[int, list[int]] = {}
        self.hours: dict[int, list[int]] = {}
        self.held = [0, 0, 0]
        self.running: dict[str, OpenAttempt] = {}

    def book(self, at: int, amounts: Amounts) -> None:
        for buckets, index in ((self.minutes, at // MINUTE), (self.hours, at // HOUR)):
            bucket = buckets.setdefault(index, [0, 0, 0])
            for i in range(3):
                bucket[i] += amounts[i]
        for window_sum in self.running.values():
            if window_sum.start <= at < window_sum.end:
                for i in range(3):
                    window_sum.amounts[i] += amounts[i]

    def used(self, name: str, at: int) -> list[int]:
        """What was charged in the window of ``at``."""
        if is_rolling(name):
            start, end = window(name, at)
            return _sum(self.minutes, start // MINUTE, end // MINUTE)
        running = self.running.get(name)
        if running is None or not running.start <= at < running.end:
            start, end = window(name, at)
            running = OpenAttempt(start, end, _sum(self.hours, start // HOUR, end // HOUR))
            self.running[name] = running
        return running.amounts


def _sum(buckets: Mapping[int, list[int]], first: int, last: int) -> list[int]:
    inside = [buckets[i] for i in range(first, last) if i in buckets]
    return [sum(bucket[i] for bucket in inside) for i in range(3)]


class Ledger:
    """All scopes, and the limits in force."""

    def __init__(self, scopes_max: int = SCOPES_MAX) -> None:
        self.accounts: dict[str, Account] = {}
        self.limits: list[tuple[str, str, str, int]] = []
        self.overdraft = False
        self._scopes_max = scopes_max
        self._of: dict[str, dict[tuple[str, str], int]] = {}

    def set_policy(self, data: Mapping[str, Any]) -> None:
        """Another policy is in force from here on."""
        self.limits = [
            (x["scope"], x["unit"], x["window"], x["amount"]) for x in data.get("limits", ())
        ]
        self.overdraft = bool(data.get("critical_overdraft", False))
        self._of.clear()

    def limits_of(self, scope: str) -> dict[tuple[str, str], int]:
        """Limits on ``scope`` by unit and window: those of its kind, then its own."""
        limits = self._of.get(scope)
        if limits is None:
            limits = self._of[scope] = {}
            for wanted in (scope.partition(":")[0], scope):
                for name, unit, length, amount in self.limits:
                    if name == wanted:
                        limits[unit, length] = amount
        return limits

    def place(self, scope: str) -> str:
        """Where ``scope`` is counted: past 10,000 scopes, new ones share one."""
        if scope in self.accounts or len(self.accounts) < self._scopes_max:
            return scope
        return scope.partition(":")[0] + ":other"

    def _account(self, scope: str) -> Account:
        place = self.place(scope)
        account = self.accounts.get(place)
        if account is None:
            account = self.accounts[place] = Account()
        return account

    def book(self, scopes: Iterable[str], at: int, amounts: Amounts) -> None:
        for scope in scopes:
            self._account(scope).book(at, amounts)

    def hold(self, scopes: Iterable[str], amounts: Amounts) -> None:
        """Hold more, or with negative amounts less, in every one of ``scopes``."""
        for scope in scopes:
            held = self._account(scope).held
            for i in range(3):
                held[i] += amounts[i]

    def standing(self, scope: str, unit: str, length: str, at: int) -> tuple[int, int]:
        """What is used in the window of ``at``, and what is held."""
        account = self.accounts.get(self.place(scope))
        if account is None:
            return 0, 0
        i = UNITS.index(unit)
        return account.used(length, at)[i], account.held[i]

    def broken(
        self, priority: str, scopes: Iterable[str], asked: Amounts, at: int
    ) -> tuple[list[str], int]:
        """The limits that ``asked`` goes beyond, in words, and how many were looked at."""
        if priority == "critical" and self.overdraft:
            return [], 0
        beyond: list[str] = []
        looked = 0
        for scope in scopes:
            for (unit, length), limit in self.limits_of(scope).items():
                looked += 1
                used, held = self.standing(scope, unit, length, at)
                more = asked[UNITS.index(unit)]
                if not passes(priority, used + held + more, limit):
                    beyond.append(
                        f"{unit}/{length} of {scope}: {used:,} used + {held:,} held + {more:,} "
                        f"asked is beyond the gate of {priority} below {limit:,}"
                    )
        return beyond, looked


def scopes_of(worker: str, agent: str, model: str, project: str) -> tuple[str, ...]:
    named = (("worker", worker), ("agent", agent), ("model", model), ("project", project))
    return ("global", *(f"{kind}:{name}" for kind, name in named if name))
