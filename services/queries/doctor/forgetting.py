"""What doctor says of words that are to be forgotten."""

from __future__ import annotations

from collections.abc import Iterator

from projections.format import count
from services.queries.doctor.findings import Look
from services.store.health import FactRow


def forgotten_rows(look: Look) -> Iterator[FactRow]:
    """One row: how many tasks are forgotten whose words still stand, and why."""
    bus = look.bus
    waiting = bus.client.call("HLEN", bus.keys.forgotten)
    problem = bus.client.call("GET", bus.keys.rewrite_problem)
    if problem:
        value = f"of {count(waiting, 'task')} still in Redis, shown to nobody"
        yield ("forgotten words", value, "bad", problem.decode())
    elif waiting:
        yield ("forgotten words", f"of {count(waiting, 'task')} are being taken out", "ok", "")
