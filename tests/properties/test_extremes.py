"""Sums without a bound: whatever is reported for however long, the state encodes and replays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.money import Price, nanos_of
from projections import budgets, forecast, usage, views
from projections.state import State, decode_state
from services.audit.check import Audit
from services.intake.policies import PLAUSIBLE_NANOS_MAX, PLAUSIBLE_TOKENS_MAX, PRICE_MAX
from services.queries.conservation import books
from tests.examples import limit, policy
from tests.given import Bus, replayed
from tests.strategies import examples

TOKENS = 10**15  # the most that one report can tell
EXTREME = policy(
    limit("global", "tokens", "day", 10**18),
    limit("global", "money", "5h", 10**18),
    limit("worker", "money", "hour", 10**18),
    prices={"sonnet": Price(PRICE_MAX, PRICE_MAX, PRICE_MAX, PRICE_MAX)},
    plausible_tokens=PLAUSIBLE_TOKENS_MAX,
    plausible_nanos=PLAUSIBLE_NANOS_MAX,
    critical_overdraft=True,
    cache_read_weight_percent=100,
)
_report = st.tuples(
    st.sampled_from(("foreign", "running", "end", "late", "accept", "set", "torn")),
    st.sampled_from((0, 1, 10**9, TOKENS - 1, TOKENS)),
    st.sampled_from((None, "0", "999999.999999999", "1000000")),
)


def _play(bus: Bus, kind: str, tokens: int, cost: str | None, number: int) -> None:
    parts = {"input_tokens": tokens, "cache_read_tokens": tokens}
    reported: dict[str, Any] = {"usage": parts, **({"cost_usd": cost} if cost else {})}
    foreign: dict[str, Any] = {"agent": "codex", "model": ("sonnet", "new")[number % 2], **reported}
    running = sorted(bus.state.tasks)
    if kind == "foreign":
        bus.send("usage.recorded", **foreign)
    elif kind == "torn":
        bus.send("task.completed", task=f"gone{number}", attempt=1, session="5-0", **reported)
    elif kind in ("accept", "set"):
        for key, charge in list(bus.state.disputes.items())[:3]:
            name = (charge.task, charge.attempt) if charge.attempt else (key, 0)
            how: dict[str, Any] = {"accept": True} if kind == "accept" else {"tokens": tokens}
            bus.send("usage.corrected", task=name[0], attempt=name[1], reason="extreme", **how)
    elif running:
        types = {"running": "usage.recorded", "end": "task.completed", "late": "task.completed"}
        more = {"agent": "codex"} if kind == "running" else {}
        bus.report(types[kind], running[number % len(running)], **more, **reported)
    bus.run()


@examples(25)
@given(st.lists(_report, min_size=5, max_size=30))
def test_extreme_reports_are_added_up_exactly_and_replayed(reports: list[Any]) -> None:
    bus = Bus(EXTREME)
    bus.join("w1", capacity=50)
    for number in range(10):
        bus.submit(model="sonnet", priority="critical", estimate_tokens=10**9 if number else 1)
    bus.run()
    for number, (kind, tokens, cost) in enumerate(reports):
        _play(bus, kind, tokens, cost, number)
    audit = Audit()
    for entry in bus.log:
        audit.feed(entry)
    assert audit.findings == []
    assert [row for row in books(audit, bus.state) if not row.good] == []
    assert replayed(bus.log).digest() == bus.state.digest()
    views.throttle_view(bus.state, bus.now)
    for reach in forecast.reaches(bus.state, bus.now):
        views.iso(reach.at)


def test_sums_beyond_64_bits_stay_exact_through_a_snapshot() -> None:
    bus = Bus(EXTREME)
    for _ in range(120):
        bus.send("usage.recorded", agent="codex", model="sonnet", total_tokens=TOKENS)
    bus.run()
    report = 10**15 * 10**12  # nano-dollars that each report comes to
    total = usage.total(bus.state.lifetime.values())
    assert total.nanos == 120 * PLAUSIBLE_NANOS_MAX
    assert total.disputed_nanos == 120 * (report - PLAUSIBLE_NANOS_MAX) > 2**64
    read = decode_state(bus.state.encode())
    assert isinstance(read, State)
    assert usage.total(read.lifetime.values()).disputed_nanos == total.disputed_nanos
    assert read.digest() == bus.state.digest() == replayed(bus.log).digest()
    for key in sorted(bus.state.disputes):
        bus.send("usage.corrected", task=key, accept=True, reason="it is true")
    bus.run()
    assert budgets.used(bus.state, "global", "day", bus.now).nanos == 120 * report > 2**64
    tail = bus.log[read.meta.events :]
    assert replayed(tail, read).digest() == bus.state.digest()


@pytest.mark.parametrize("text", ["1e99999999", "1e18", "Infinity", "NaN", "-1e400"])
def test_no_amount_of_dollars_takes_all_memory(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount of dollars"):
        nanos_of(text)


def test_an_absurd_price_is_refused() -> None:
    bus = Bus(policy())
    bus.send("policy.changed", set_prices={"gold": {"input": PRICE_MAX + 1}})
    bus.run()
    assert "the price of gold" in bus.refused[-1].error
