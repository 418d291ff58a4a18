"""What each attempt was charged, for the audit: the plausibility bound, and corrections of charges.

Nothing here comes from the folds: it adds up what the events themselves say, by attempt and by
report of foreign work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

BOUND = (2_000_000, 20_000_000_000)  # tokens, nano-dollars, where the policy names none
UNITS = ("tokens", "nano-dollars")


class Charges:
    """Sums by attempt (``1:task``), and by the log id of a foreign report."""

    def __init__(self, find: Callable[[str, str], None]) -> None:
        self._find = find
        self._bound = BOUND
        self._given: dict[str, tuple[int, int]] = {}  # what users said an attempt may well use
        self._sums: dict[str, list[int]] = {}  # tokens, nanos, and both again of what is disputed

    def set_policy(self, data: Mapping[str, Any]) -> None:
        """Another policy is in force from here on."""
        self._bound = (
            data.get("plausible_tokens", BOUND[0]),
            data.get("plausible_nanos", BOUND[1]),
        )

    def begin(self, task: str, attempt: int, given: tuple[int, int]) -> None:
        """An attempt begins; ``given`` is its hold where a user estimated the task himself."""
        if any(given):
            self._given[f"{attempt}:{task}"] = given

    def add(self, data: Mapping[str, Any], charged: Mapping[str, Any], log_id: str) -> None:
        """What an event books."""
        key = self._key(data, log_id)
        sums = self._sums.setdefault(key, [0, 0, 0, 0])
        before = list(sums)
        for i, name in enumerate(("tokens", "nanos", "disputed_tokens", "disputed_nanos")):
            sums[i] += charged.get(name, 0)
        if min(sums) < 0:
            self._find("correct", f"{key} is given back more than it was charged or disputed")
        if data.get("action"):
            self._check_action(data["action"], key, before, sums)
        elif not charged.get("estimated"):
            self._check_bound(key, before, sums)

    def disputed(self) -> dict[str, list[int]]:
        """What is still disputed: tokens and nano-dollars of each attempt or report."""
        return {key: sums[2:] for key, sums in self._sums.items() if any(sums[2:])}

    def _key(self, data: Mapping[str, Any], log_id: str) -> str:
        if data.get("report"):
            return str(data["report"])
        attempt, task = data.get("attempt", 0), data.get("task", "")
        return log_id if not attempt or data.get("unknown_task") else f"{attempt}:{task}"

    def _check_bound(self, key: str, before: list[int], after: list[int]) -> None:
        given = self._given.get(key, (0, 0))
        for i, unit in enumerate(UNITS):
            bound = max(self._bound[i], given[i])
            if after[i] > max(before[i], bound):
                text = f"{key} was charged {after[i]:,} {unit} by reports; {bound:,} are plausible"
                self._find("plausible", text)

    def _check_action(self, action: str, key: str, before: list[int], after: list[int]) -> None:
        disputed = before[2:] if action == "accept" else [0, 0]
        moved = [after[i] - before[i] for i in range(2)]
        if action in ("accept", "drop") and moved != disputed:
            self._find("correct", f"{action} of {key} changes it by {moved}, not {disputed}")
        if any(after[2:]):
            self._find("correct", f"{action} of {key} leaves something of it disputed")
