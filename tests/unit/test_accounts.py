"""A provider refuses an account: its workers pause until the reset, and nothing loses a try."""

from __future__ import annotations

from typing import Any

import pytest

from services.queries.accounts import account_text, accounts_view
from services.queries.waiting import Waiting
from services.screens.status import status_screen
from tests.examples import HOUR, MINUTE, SECOND
from tests.given import Bus, replayed

ACCOUNT = "claude@host"


def fleet(tasks: int = 6, workers: int = 3, **join: Any) -> Bus:
    bus = Bus()
    for n in range(workers):
        bus.join(f"w{n}", account=ACCOUNT, **join)
    bus.run()
    for n in range(tasks):
        bus.submit(f"Fix number {n}", task=f"t{n}")
    bus.run()
    return bus


def running(bus: Bus) -> list[str]:
    return sorted(t for w in bus.state.workers.values() for t in w.running)


def refuse(bus: Bus, task: str, until: int = 0, **more: Any) -> None:
    limit = {"until": until, "evidence": "You've hit your 5-hour limit"}
    bus.report("task.failed", task, error="limit", calls=0, limit=limit, **more)
    bus.run()


def test_six_tasks_against_a_limit_make_one_refused_call_a_worker() -> None:
    bus = fleet()
    reset = bus.now + 2 * HOUR
    for task in running(bus):
        refuse(bus, task, reset)
    assert len(bus.of("account.limited")) == 1
    assert len(bus.of("task.dispatched")) == 3
    bus.wait(HOUR / SECOND)
    assert running(bus) == []
    # After the reset and its jitter all go on, once.
    bus.wait(HOUR / SECOND + 20)
    assert [d.by_hand for d in bus.of("account.released")] == [False]
    assert len(running(bus)) == 3


def test_what_was_refused_loses_no_try_and_costs_nothing() -> None:
    bus = fleet(tasks=1, workers=1)
    for n in range(5):  # more often than it may be tried
        refuse(bus, "t0", bus.now + MINUTE)
        assert bus.state.tasks["t0"].attempt == n + 1
        assert bus.state.tasks["t0"].tries == 0
        bus.wait(90)
    assert running(bus) == ["t0"]
    assert [(r.charged.tokens, r.limited) for r in bus.of("task.requeued")] == [(0, ACCOUNT)] * 5
    for _ in range(3):  # its own failures count
        bus.report("task.failed", "t0", error="x")
        bus.run()
        bus.wait(400)
    assert bus.state.outcomes["t0"].status == "failed"


def test_without_a_reset_it_backs_off_longer_each_time() -> None:
    bus = fleet(tasks=1, workers=1)
    waits: list[int] = []
    for _ in range(3):
        before = bus.now
        refuse(bus, "t0")
        waits.append(bus.of("account.limited")[-1].until - before)
        bus.wait(5 * 60)
    assert waits == [MINUTE, 2 * MINUTE, 4 * MINUTE]
    bus.report("task.completed", "t0", result="ok", usage={"input_tokens": 1})
    bus.run()
    assert bus.state.accounts[ACCOUNT].refusals == 0


@pytest.mark.parametrize("until", [-1, 10**18])
def test_a_reset_is_bounded(until: int) -> None:
    bus = fleet(tasks=1, workers=1)
    refuse(bus, "t0", until)
    wait = bus.of("account.limited")[0].until - bus.now
    assert wait in (MINUTE, 8 * 24 * HOUR)


def test_other_accounts_and_agents_go_on() -> None:
    bus = fleet(tasks=1, workers=1)
    bus.join("other", account="codex@host")
    refuse(bus, "t0", bus.now + HOUR)
    assert bus.state.tasks["t0"].worker == "other"


def test_an_account_with_no_name_is_its_worker() -> None:
    bus = Bus()
    bus.join("w1")
    bus.submit(task="t0")
    bus.run()
    bus.report("task.failed", "t0", error="limit", limit="quota")
    bus.run()
    assert bus.of("account.limited")[0].account == "w1"


def test_an_operator_releases_it_and_nobody_else() -> None:
    bus = fleet(tasks=1, workers=1)
    refuse(bus, "t0", bus.now + HOUR)
    bus.send("account.released", account="nobody")
    bus.send("account.released", account=ACCOUNT, intake="asb:intake:w9")
    bus.run()
    assert len(bus.refused) == 2
    bus.send("account.released", account=ACCOUNT, reason="bought more")
    bus.run()
    assert bus.of("account.released")[0].by_hand
    assert running(bus) == ["t0"]


def test_a_later_reset_lengthens_the_pause_an_earlier_one_does_not() -> None:
    bus = fleet(tasks=3)
    for task, hours in zip(running(bus), (2, 1, 3), strict=True):
        refuse(bus, task, bus.now + hours * HOUR)
    assert len(bus.of("account.limited")) == 2
    assert bus.state.accounts[ACCOUNT].until == bus.of("account.limited")[1].until


def test_a_cancelled_task_is_not_given_out_again() -> None:
    bus = fleet(tasks=1, workers=1)
    bus.send("task.cancel_requested", task="t0")
    bus.run()
    refuse(bus, "t0", bus.now + HOUR)
    assert bus.state.outcomes["t0"].status == "cancelled"


def test_it_is_shown_with_its_time() -> None:
    bus = fleet(tasks=1, workers=1)
    refuse(bus, "t0", bus.now + 2 * HOUR)
    known = bus.state.accounts[ACCOUNT]
    text = account_text(known, bus.now)
    assert text.startswith(f"{ACCOUNT}: limited until 2026-11-22 14:00:00 UTC, in 2 h")
    assert text in status_screen(bus.state, bus.now, {})
    reason = Waiting(bus.state, bus.now).reason(bus.state.tasks["t0"])
    assert f"{ACCOUNT} is limited by its provider until 14:00 UTC" in reason
    row = accounts_view(bus.state, bus.now)["accounts"][0]
    assert (row["account"], row["limited"], row["workers"]) == (ACCOUNT, True, ["w0"])


def test_replay_knows_the_same_accounts() -> None:
    bus = fleet()
    for task in running(bus):
        refuse(bus, task, bus.now + HOUR)
    assert replayed(bus.log).encode() == bus.state.encode()
