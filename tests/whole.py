"""The judge of a whole that several buses divide: it reads the raw entries of all their logs, and
shares no code with what it judges but the bounds of windows.

Each log is put into the order of the latest time it has seen so far, and all are folded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from projections.windows import interval

Entry = tuple[int, str, int, str, dict[str, Any], int]  # latest time, bus, place, type, data, time
ENDS = ("task.completed", "task.failed", "task.cancelled", "task.requeued")


def in_order(logs: Mapping[str, Sequence[Any]]) -> list[Entry]:
    """The entries of all logs; at the same time, whoever then has less comes first."""

    def entries() -> Iterator[Entry]:
        for bus, log in logs.items():
            latest = 0
            for place, (_, fields) in enumerate(log):
                at = int(fields[9])
                latest = max(latest, at)
                data = msgspec.json.decode(fields[11])
                yield latest, bus, place, fields[1].decode(), data, at

    return sorted(entries(), key=lambda entry: entry[:3])


def overshot(
    logs: Mapping[str, Sequence[Any]], whole: int, window: str, unit: str = "tokens"
) -> list[str]:
    """Dispatches beyond the whole."""
    hold = {"tokens": "hold_tokens", "money": "hold_nanos"}[unit]
    held: dict[tuple[str, str], int] = {}
    used: list[tuple[int, int]] = []
    wrong: list[str] = []
    for latest, bus, _, kind, data, at in in_order(logs):
        if kind == "task.dispatched":
            held[bus, data["task"]] = data[hold]
            start, end = interval(window, latest)
            amount = sum(n for when, n in used if start <= when < end) + sum(held.values())
            if amount > whole:
                wrong.append(f"{data['task']} at {latest} on {bus}: {amount:,} of {whole:,}")
        elif kind in ENDS:
            charged = data.get("charged", {})
            used.append((at, charged.get("tokens" if unit == "tokens" else "nanos", 0)))
            held.pop((bus, data["task"]), None)
    return wrong


def largest_sum(logs: Mapping[str, Sequence[Any]], window: str, unit: str = "tokens") -> int:
    """The most that all shares together ever were; those that have none count nothing."""
    shares: dict[str, int] = {}
    most = 0
    moments: dict[int, dict[str, int]] = {}
    for latest, bus, _, kind, data, _ in in_order(logs):
        if kind == "policy.changed" and any(
            (x["unit"], x["window"]) == (unit, window) for x in data.get("shares", ())
        ):
            (amount,) = (
                x["amount"]
                for x in data["limits"]
                if (x["scope"], x["unit"], x["window"]) == ("global", unit, window)
            )
            moments.setdefault(latest, {})[bus] = amount
    for _, changed in sorted(moments.items()):
        shares |= changed
        most = max(most, sum(shares.values()))
    return most
