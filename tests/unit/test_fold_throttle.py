"""Levels, gates and limits as folds (T2, T3, T5, T6, T13, T14)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from events.policy import Limit
from events.task import PRIORITIES
from projections import budgets, scopes, windows
from projections.budgets import LEVELS, Refusal
from services.intake import policies
from tests import examples, reference_model
from tests.examples import DAY, HOUR, NOON, limit, policy
from tests.given import Given, given

WORK = ("w1", "codex", "sonnet", "shop")
KEYS = scopes.scope_keys(*WORK)
WINDOWS = ("hour", "day", "week", "month", "5h", "90m")


def spend(case: Given, tokens: int, **changes: Any) -> Given:
    charged = examples.charge(tokens, tokens, project="shop", **changes)
    return case.given(examples.usage_recorded("", charged=charged, attempt=0))


def ask(
    case: Given, priority: str, tokens: int = 0, nanos: int = 0, tasks: int = 0
) -> Refusal | None:
    rank = PRIORITIES.index(priority)
    return budgets.refusal(case.state, KEYS, rank, (tokens, nanos, tasks), case.now)


# -- levels and gates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "name"),
    [
        (0, "NONE"),
        (799, "NONE"),
        (800, "WARNING"),
        (899, "WARNING"),
        (900, "SOFT"),
        (949, "SOFT"),
        (950, "HARD"),
        (990, "HARD"),
        (991, "CRITICAL"),
        (1_000, "CRITICAL"),
        (50_000, "CRITICAL"),
    ],
)
def test_a_level_begins_at_its_threshold(amount: int, name: str) -> None:
    assert LEVELS[budgets.level(amount, 1_000)] == name


def test_a_limit_of_nothing_is_critical() -> None:
    assert LEVELS[budgets.level(0, 0)] == "CRITICAL"


@for_all(st.integers(0, 10**18), st.integers(0, 10**18))
def test_levels_and_gates_are_exact_at_any_size(amount: int, most: int) -> None:
    assert LEVELS[budgets.level(amount, most)] == reference_model.level(amount, most)
    for rank, priority in enumerate(PRIORITIES):
        allowed = amount <= budgets.gate(rank, most)
        assert allowed == reference_model.passes(priority, amount, most)


GATES = {"low": 899, "normal": 949, "high": 990, "critical": 1_000}


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("level", [400, 800, 900, 950, 990, 991, 1_000])
def test_the_gate_table(priority: str, window: str, level: int) -> None:
    """T5: at each level, for each priority and window, the last unit below the gate is admitted
    and the first above it is not."""
    case = given(policy(limit("global", "tokens", window, 1_000)))
    spend(case, level)
    room = GATES[priority] - level
    for asked in (room - 1, room, room + 1):
        if asked > 0:
            assert (ask(case, priority, asked) is None) == (asked <= room)
    if room < 0:
        assert ask(case, priority, 0) is not None


@pytest.mark.parametrize("unit", ["tokens", "money", "tasks"])
@pytest.mark.parametrize(
    "scope", ["global", "worker", "worker:w1", "agent", "model", "project:shop"]
)
def test_every_scope_and_unit_gates(scope: str, unit: str) -> None:
    case = given(policy(limit(scope, unit, "hour", 10)))
    asked = {"tokens": (10, 0, 0), "money": (0, 10, 0), "tasks": (0, 0, 10)}[unit]
    assert ask(case, "critical", *asked) is None
    over = tuple(n + 1 if n else 0 for n in asked)
    found = ask(case, "critical", *over)
    assert found is not None
    assert (found.unit, found.missing, found.never) == (unit, 1, True)
    assert found.scope.partition(":")[0] == scope.partition(":")[0]


def test_the_strictest_of_two_windows_wins_and_is_named() -> None:
    case = given(
        policy(limit("global", "tokens", "hour", 1_000), limit("agent", "tokens", "day", 900))
    )
    spend(case, 800)
    found = ask(case, "normal", 100)
    assert found is not None
    assert (found.scope, found.window, found.limit, found.missing) == (
        "agent:codex",
        "day",
        900,
        46,
    )
    assert found.resets_at == windows.interval("day", case.now)[1]


@pytest.mark.parametrize("full", range(6))
def test_one_full_window_refuses_the_whole_set_and_nothing_changes(full: int) -> None:
    """T2: each window in turn the only full one; the state is byte-equal before and after."""
    scopes = ("worker:w1", "worker", "global", "global", "model:sonnet", "project")
    windows = ("hour", "day", "hour", "month", "5h", "week")
    limits = [
        limit(scope, "tokens", window, 1_000 if i == full else 10**9)
        for i, (scope, window) in enumerate(zip(scopes, windows, strict=True))
    ]
    case = spend(given(policy(*limits)), 900)
    before = case.state.digest()
    found = ask(case, "normal", 100, 100, 1)
    assert found is not None
    assert (found.window, found.limit) == (windows[full], 1_000)
    assert case.state.digest() == before


def test_a_scope_never_seen_is_judged_like_any_other() -> None:
    """T3: the first use of a worker stands under its kind's limit at once."""
    case = given(policy(limit("worker", "tokens", "hour", 3_200)), examples.joined(capacity=64))
    admitted = 0
    for n in range(64):
        if ask(case, "normal", 1_000) is None:
            name = f"t{n}"
            case.given(
                examples.submitted(name), examples.delegated(name), examples.dispatched(name)
            )
            admitted += 1
    assert admitted == 3


def test_scopes_past_ten_thousand_share_one_and_evade_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scopes, "SCOPES_MAX", 5)
    case = given(policy(limit("project", "tokens", "hour", 1_000)))
    for n in range(10):
        charged = examples.charge(200, 200, project=f"p{n}")
        case.given(examples.usage_recorded("", charged=charged, attempt=0))
    assert "project:other" in case.state.scopes
    assert len(case.state.scopes) <= 6
    found = budgets.refusal(case.state, ("project:new",), 3, (1, 0, 0), case.now)
    assert found is not None
    total = sum(
        s.hours[case.now // HOUR].tokens for k, s in case.state.scopes.items() if "proj" in k
    )
    assert total == 2_000


# -- limits as data (T6) -------------------------------------------------------------------------


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("unit", ["tokens", "money", "tasks"])
def test_a_limit_of_0_refuses_all(priority: str, unit: str) -> None:
    case = given(policy(limit("global", unit, "hour", 0)))
    for asked in ((1, 1, 1), (0, 0, 0)):
        found = ask(case, priority, *asked)
        assert found is not None
        assert found.never


def test_no_limit_is_no_limit() -> None:
    assert ask(given(policy()), "low", 10**15, 10**15, 10**6) is None


def test_a_lowered_limit_stops_new_work_and_touches_nothing_that_runs() -> None:
    case = given(policy(limit("global", "tokens", "hour", 10_000)), examples.joined())
    case.given(examples.submitted(), examples.delegated(), examples.dispatched())
    held = budgets.held(case.state, "global", "tokens")
    case.given(policy(limit("global", "tokens", "hour", 500)))
    assert ask(case, "critical", 1) is not None
    assert budgets.held(case.state, "global", "tokens") == held == 1_000
    case.given(examples.completed())
    assert budgets.used(case.state, "global", "hour", case.now).tokens == 600
    assert budgets.held(case.state, "global", "tokens") == 0


def test_a_raised_limit_admits_the_next_ask_and_forgets_nothing() -> None:
    case = spend(given(policy(limit("global", "tokens", "hour", 1_000))), 949)
    assert ask(case, "normal", 1) is not None
    case.given(policy(limit("global", "tokens", "hour", 2_000)))
    assert budgets.used(case.state, "global", "hour", case.now).tokens == 949
    assert ask(case, "normal", 950) is None
    assert ask(case, "normal", 951) is not None


def test_a_limit_added_later_sees_history() -> None:
    case = spend(given(policy(), at=NOON - DAY), 700)
    case.now = NOON + HOUR
    spend(case, 200)
    case.given(policy(limit("project:shop", "tokens", "month", 1_000)))
    assert ask(case, "normal", 49) is None
    assert ask(case, "normal", 50) is not None


def test_a_scopes_own_limit_takes_the_place_of_its_kinds() -> None:
    case = given(
        policy(
            limit("worker", "tokens", "hour", 1_000),
            limit("worker:w1", "tokens", "hour", 5_000),
            limit("worker", "tasks", "hour", 1),
        )
    )
    chosen = {(x.unit, x.window): x.amount for x in budgets.limits_for(case.state, "worker:w1")}
    assert chosen == {("tokens", "hour"): 5_000, ("tasks", "hour"): 1}
    others = budgets.limits_for(case.state, "worker:w2")
    assert Limit("worker", "tokens", "hour", 1_000) in others
    assert ask(case, "critical", 5_000) is None


def test_critical_work_is_unbounded_only_where_the_policy_says_so() -> None:
    limits = limit("global", "tokens", "hour", 100)
    assert ask(given(policy(limits)), "critical", 101) is not None
    overdraft = given(policy(limits, critical_overdraft=True))
    assert ask(overdraft, "critical", 10**9) is None
    assert ask(overdraft, "high", 100) is not None


# -- holds -----------------------------------------------------------------------------------------


def running(**changes: Any) -> Given:
    return given(
        policy(limit("global", "tokens", "hour", 10_000)),
        examples.joined(),
        examples.submitted(),
        examples.delegated(),
        examples.dispatched(**changes),
        examples.started(),
        at=NOON + HOUR - 10_000_000,
    )


def amounts(case: Given, at: int) -> tuple[int, int]:
    used = budgets.used(case.state, "global", "hour", at).tokens
    return used, budgets.held(case.state, "global", "tokens")


def test_a_hold_counts_in_full_wherever_the_hour_is_and_use_where_it_fell() -> None:
    """T14: held before the hour, used on both sides of the boundary, settled after it."""
    case = running()
    edge = NOON + HOUR
    case.given(examples.usage_recorded(charged=examples.charge(300, 300, tasks=0)), at=edge - 1)
    assert amounts(case, edge - 1) == (300, 700)
    assert amounts(case, edge) == (0, 700)
    case.given(examples.usage_recorded(charged=examples.charge(200, 200, tasks=0)), at=edge)
    assert amounts(case, edge) == (200, 500)
    case.given(examples.completed(charged=examples.charge(100, 100)), at=edge + 20 * 60_000_000)
    assert amounts(case, edge - 1) == (300, 0)
    assert amounts(case, edge) == (300, 0)
    assert budgets.used(case.state, "global", "day", edge).tokens == 600


def test_use_beyond_the_hold_is_booked_in_full_and_no_hold_is_negative() -> None:
    """T13: three times the hold."""
    case = running()
    case.given(examples.usage_recorded(charged=examples.charge(3_000, 3_000, tasks=0)))
    assert amounts(case, case.now) == (3_000, 0)
    assert min(case.state.tasks["t1"].hold_left) == 0
    case.given(examples.completed(charged=examples.charge(0, 0)))
    assert amounts(case, case.now) == (3_000, 0)


def test_an_extended_hold_is_held_on_top_and_released_at_the_end() -> None:
    case = running()
    case.given(examples.hold_extended(tokens=500))
    assert amounts(case, case.now) == (0, 1_500)
    case.given(examples.hold_extended(attempt=2), examples.hold_extended("t9"))
    assert amounts(case, case.now) == (0, 1_500)
    case.given(examples.completed())
    assert amounts(case, case.now) == (600, 0)


def test_every_end_of_an_attempt_releases_its_hold_in_every_scope() -> None:
    """T11: one terminal event each, and nothing is held afterwards."""
    for end in (examples.completed, examples.failed, examples.cancelled, examples.requeued):
        case = running(agent="claude")
        case.given(end())
        for scope in case.state.scopes.values():
            assert (scope.held_tokens, scope.held_nanos, scope.held_tasks) == (0, 0, 0)


def test_a_second_end_of_the_same_attempt_settles_nothing() -> None:
    """T12: whoever comes first settles the hold; later ones only book what they carry."""
    case = running()
    case.given(examples.completed())
    before = amounts(case, case.now)
    case.given(
        examples.failed(charged=None),
        examples.requeued(charged=None),
        examples.completed(charged=None),
    )
    assert amounts(case, case.now) == before
    assert case.state.outcomes["t1"].status == "completed"
    assert case.state.meta.completed == 1


def test_rows_say_what_is_used_held_and_left() -> None:
    case = running()
    row = budgets.window_rows(case.state, case.now)[0]
    assert (row["used"], row["held"], row["limit"], row["level"]) == (0, 1_000, 10_000, "NONE")
    assert row["resets_at"] == NOON + HOUR
    assert budgets.scope_level(case.state, "global", case.now) == 0


def test_a_limit_on_something_never_seen_is_shown() -> None:
    case = given(policy(limit("project:new", "tokens", "hour", 5)))
    assert [r["scope"] for r in budgets.window_rows(case.state, case.now)] == ["project:new"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (policy(limit("galaxy", "tokens", "hour", 1)), "scope"),
        (policy(limit("global", "bananas", "hour", 1)), "unit"),
        (policy(limit("global", "tokens", "fortnight", 1)), "window"),
        (policy(limit("global", "tokens", "25h", 1)), "window"),
        (policy(limit("global", "tokens", "hour", -1)), "amount"),
        (policy(limit("global", "tokens", "hour", 10**19)), "amount"),
        (policy(limit("worker:", "tokens", "hour", 1)), "scope"),
        (policy(limit("global:x", "tokens", "hour", 1)), "scope"),
        (policy(timezone="Mars/Olympus"), "timezone"),
        (policy(timezone="Europe"), "timezone"),  # a folder of zones
        (policy(timezone="x" * 300), "timezone"),
    ],
)
def test_a_policy_that_cannot_be_is_named(wrong: examples.PolicyChanged, word: str) -> None:
    assert word in policies.problem_of(wrong)


def test_a_good_policy_has_no_problem() -> None:
    good = examples.every_payload()["policy.changed"]
    assert isinstance(good, examples.PolicyChanged)
    assert policies.problem_of(good) == ""
