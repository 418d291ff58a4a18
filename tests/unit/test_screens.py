"""The screens against their exact text: the seed's layout, filled from a state built by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from events.envelope import Event, Payload
from events.money import Price, cost_nanos
from events.policy import Limit, PolicyChanged
from events.task import Charge, TaskDelegated, TaskDispatched, TaskSubmitted
from events.tokens import TokenParts
from events.usage import UsageRecorded
from events.worker import WorkerJoined
from projections import buckets, fold
from projections.format import first_line, limit_text, span
from projections.records import LEFT, LOST
from projections.state import State
from services.queries.status import status_view
from services.runtime import initial_policy
from services.runtime.settings import load
from services.screens.status import (
    Shown,
    metrics_screen,
    savings_line,
    status_screen,
    throttle_screen,
)
from services.screens.text import clip, table
from tests.examples import NOON

SONNET = Price.flat_per_1k("0.003")
SEED_WORKERS = (
    ("concurrent_worker1", 4, 15_234),
    ("concurrent_worker2", 5, 18_542),
    ("concurrent_worker3", 3, 14_747),
)


class Bench:
    """Folds facts one after the other, a millisecond apart."""

    def __init__(self) -> None:
        self.state = State()
        self.now = NOON
        settings = load(environ={"HOME": "/nowhere"}, cwd=Path("/"))
        self.fold(initial_policy.policy(settings))

    def fold(self, data: Payload, origin: str = "") -> str:
        self.now += 1000
        log_id = f"{self.now // 1000}-0"
        fold.apply(self.state, Event(data, at=self.now, log_id=log_id, origin=origin))
        return log_id

    def join(self, name: str, *, capacity: int = 1, agent: str | None = None) -> None:
        self.fold(WorkerJoined(name, session="1-0", capacity=capacity, agent=agent))

    def spend(self, worker: str, tokens: int, done: int = 0, model: str = "sonnet") -> None:
        price = self.state.policy.prices.get(model, SONNET)
        usage = TokenParts(input_tokens=tokens)
        charged = Charge(
            "codex", model, worker, input_tokens=tokens, tokens=tokens,
            nanos=cost_nanos(usage, price),
        )  # fmt: skip
        self.fold(UsageRecorded("codex", charged, model))
        self.state.workers[worker].completed += done
        self.state.meta.completed += done
        cell = next(c for k, c in self.state.lifetime.items() if k.split("\x1f")[3] == worker)
        cell.completed += done

    def queue(self, task: str, *, priority: str = "normal", estimate: int = 1000) -> None:
        self.fold(TaskSubmitted(task, f"text of {task}", priority))
        self.fold(TaskDelegated(task, "coding", "codex", "sonnet", "medium", estimate, "why"))


@pytest.fixture
def seed() -> Bench:
    """The state that the seed's screens show."""
    bench = Bench()
    for name, done, tokens in SEED_WORKERS:
        bench.join(name)
        bench.spend(name, tokens, done)
    bench.queue("t9")
    bench.fold(
        TaskDispatched("t9", 1, "concurrent_worker2", "1-0", "codex", "sonnet", 0, 0, bench.now)
    )
    return bench


STATUS = """\
CONCURRENT TASK MANAGER STATUS
================================================================================
Tasks in queue: 0
Total completed: 12
Total tokens used: 48,523
Estimated cost: $0.1456

Global Throttle Status: 🟢 NONE
  Tokens/hour: 48,523 / 500K  (9.7%)
  Tokens/day:  48,523 / 5M    (0.97%)
  Cost/hour:   $0.15 / $5.00  (2.9%)
  Cost/day:    $0.15 / $50.00 (0.29%)

Worker Status:
  concurrent_worker1   🟢 IDLE     | Done:  4 | Tokens: 15,234 | Task: None
  concurrent_worker2   🔴 BUSY     | Done:  5 | Tokens: 18,542 | Task: Implement authentication
  concurrent_worker3   🟢 IDLE     | Done:  3 | Tokens: 14,747 | Task: None

Throttle Levels:
  concurrent_worker1   🟢 NONE       | Hour: 15,234 | Day: 15,234
  concurrent_worker2   🟢 NONE       | Hour: 18,542 | Day: 18,542
  concurrent_worker3   🟢 NONE       | Hour: 14,747 | Day: 14,747"""


def test_status_is_the_seeds_screen(seed: Bench) -> None:
    text = status_screen(seed.state, seed.now, {"t9": "\n Implement  authentication\nand more"})
    assert text == STATUS


METRICS = """\
TOKEN USAGE & COST METRICS
================================================================================
Global Metrics:
  Total tasks completed:  12
  Total tokens used:      48,523
  Estimated total cost:   $0.1456
  Average tokens/task:    4,043
  Average cost/task:      $0.0121

Per-Worker Metrics:
  concurrent_worker1
    Tasks completed:  4
    Tokens used:      15,234
    Estimated cost:   $0.0457
    Avg tokens/task:  3,808

  concurrent_worker2
    Tasks completed:  5
    Tokens used:      18,542
    Estimated cost:   $0.0556
    Avg tokens/task:  3,708

  concurrent_worker3
    Tasks completed:  3
    Tokens used:      14,747
    Estimated cost:   $0.0442
    Avg tokens/task:  4,915

Cost Optimization:
  ✅ Task delegation enabled - routing to optimal models
  ✅ Measured savings: 0.00% vs all on sonnet ($0.1456, not $0.1456)"""


def test_metrics_is_the_seeds_screen(seed: Bench) -> None:
    assert metrics_screen(seed.state) == METRICS


THROTTLE = """\
Global Throttle Status: 🟢 NONE
  Tokens/hour: 48,523 / 500K     (9.7%) + 1,010 held
  Tokens/day:  48,523 / 5M       (0.97%) + 1,010 held
  Cost/hour:   $0.15 / $5.00     (2.9%) + $0.01 held
  Cost/day:    $0.15 / $50.00    (0.29%) + $0.01 held
  Cost/month:  $0.15 / $1,000.00 (0.01%) + $0.01 held

Throttle Levels:
  concurrent_worker1   🟢 NONE       | Hour: 15,234 | Day: 15,234
  concurrent_worker2   🟢 NONE       | Hour: 18,542 | Day: 18,542 + 1,010 held
  concurrent_worker3   🟢 NONE       | Hour: 14,747 | Day: 14,747"""


def test_throttle_shows_what_is_held_behind_its_line(seed: Bench) -> None:
    buckets.hold(seed.state, ("global", "worker:concurrent_worker2"), 1010, 5_000_000, 1)
    assert throttle_screen(seed.state, seed.now) == THROTTLE


def test_the_levels_of_all_work_together_are_marked_where_they_are_reached() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 455_000, 1)
    buckets.hold(bench.state, ("global",), 10_000, 0, 1)
    for text in (
        status_screen(bench.state, bench.now, {}),
        throttle_screen(bench.state, bench.now),
    ):
        rows = text.splitlines()
        assert next(r for r in rows if "Tokens/hour" in r).endswith("+ 10,000 held  🟠 SOFT")
        assert next(r for r in rows if "Tokens/day" in r).endswith("(9.1%) + 10,000 held")
    assert status_view(bench.state, bench.now, {})["level"] == "SOFT"


def test_without_workers_and_data_nothing_is_invented() -> None:
    bench = Bench()
    text = status_screen(bench.state, bench.now, {})
    assert text.count("  no workers yet") == 2
    assert "  Tokens/hour: 0 / 500K       (0.00%)" in text
    assert metrics_screen(bench.state).endswith("⏳ Measured savings: not enough data yet")


def test_savings_are_measured_against_the_dearest_model() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 1_000_000, 1, model="haiku")
    line = savings_line(bench.state)
    assert "91.7% vs all on sonnet ($0.2500, not $3.0000)" in line


def test_words_and_order_of_workers() -> None:
    bench = Bench()
    for name in ("w10", "w2", "w1", "w3"):
        bench.join(name)
    workers = bench.state.workers
    workers["w2"].paused = True
    workers["w3"].status, workers["w10"].status = LOST, LEFT
    text = status_screen(bench.state, bench.now, {})
    lines = text.partition("Worker Status:\n")[2].splitlines()
    assert [line[2:34].rstrip() for line in lines[:4]] == [
        "w1                   🟢 IDLE",
        "w2                   🟡 PAUSED",
        "1 left and 1 lost: --all shows t",
        "",
    ]
    for screen in (metrics_screen(bench.state), throttle_screen(bench.state, bench.now)):
        assert "w10" not in screen
        assert "1 left and 1 lost: --all shows them" in screen
    text = status_screen(bench.state, bench.now, {}, Shown(everyone=True))
    lines = text.partition("Worker Status:\n")[2].splitlines()
    assert [line[2:34].rstrip() for line in lines[:4]] == [
        "w1                   🟢 IDLE",
        "w2                   🟡 PAUSED",
        "w3                   ⚫ LOST",
        "w10                  ⚪ LEFT",
    ]


def test_long_names_and_hundreds_of_workers_stay_aligned() -> None:
    bench = Bench()
    for number in range(300):
        bench.join(f"worker-{'x' * (number % 60)}{number}")
    lines = status_screen(bench.state, bench.now, {}).partition("Worker Status:\n")[2]
    columns = {line.index("|") for line in lines.partition("\n\n")[0].splitlines()}
    assert len(columns) == 1
    assert columns.pop() < 60


def test_the_global_level_stands_on_its_line_with_its_reason() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 3_600_000, 1)  # $10.80 of $5 an hour
    text = status_screen(bench.state, bench.now, {})
    assert "Global Throttle Status: 🚨 CRITICAL: tokens/hour overall at 720.0%" in text
    assert "Cost/hour:   $10.80 / $5.00" in text
    view = status_view(bench.state, bench.now, {})
    assert (view["level"], view["level_reason"]) == ("CRITICAL", "tokens/hour overall at 720.0%")


def test_a_limit_of_an_agent_that_is_reached_stands_below_the_global_lines() -> None:
    bench = Bench()
    bench.join("w1")
    assert "(asb limits)" not in status_screen(bench.state, bench.now, {})
    bench.state.policy = replace(
        bench.state.policy, limits=(Limit("agent:codex", "tokens", "hour", 100),)
    )
    bench.spend("w1", 90)
    said = status_screen(bench.state, bench.now, {}).partition("Worker Status")[0]
    assert "🟠 SOFT      tokens/hour of agent codex (asb limits)" in said


def test_waiting_tasks_name_the_command_that_says_why() -> None:
    bench = Bench()
    assert "--waiting" not in status_screen(bench.state, bench.now, {})
    bench.queue("t1")
    text = status_screen(bench.state, bench.now, {})
    assert "Tasks in queue: 1  (asb tasks --waiting says" in text


def test_estimates_unpriced_disputed_unreadable_and_foreign_are_named_where_figures_are() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 1000, 1)
    assert status_view(bench.state, bench.now, {})["notices"] == {
        "estimated_tokens": 0, "unpriced_models": [], "disputed_tokens": 0,
        "disputed_cost_nanos": 0, "unreadable_reports": 0, "foreign_tokens": {},
    }  # fmt: skip
    guess = Charge("codex", "sonnet", "w1", tokens=500, nanos=1_500_000, estimated=True)
    bench.fold(UsageRecorded("codex", guess, "sonnet"))
    other = Charge("gemini", "own-model", input_tokens=70, tokens=70, flag="x is no number",
                   disputed_tokens=5)  # fmt: skip
    bench.fold(UsageRecorded("gemini", other, "own-model"))
    for text in (status_screen(bench.state, bench.now, {}), metrics_screen(bench.state)):
        assert "Estimated:  500 of these tokens: no usage was told" in text
        assert "Unpriced:   own-model (asb prices)" in text
        assert "Disputed:   5 tokens, $0.0000, not charged (asb correct)" in text
        assert "Unreadable: 1 report of gemini (asb doctor)" in text
        assert "Foreign:    70 tokens that gemini told" in text
        assert max(map(len, text.splitlines())) <= 80


def test_savings_come_from_measured_usage_only() -> None:
    bench = Bench()
    bench.join("w1")
    bench.spend("w1", 1_000_000, 1, model="haiku")
    before = savings_line(bench.state)
    guess = Charge("claude", "haiku", "w1", tokens=2_000_000, nanos=500_000_000, estimated=True)
    bench.fold(UsageRecorded("claude", guess, "haiku"))
    assert savings_line(bench.state) == before


def test_several_running_tasks_show_the_first_and_how_many_more() -> None:
    bench = Bench()
    bench.join("w1", capacity=3)
    bench.state.workers["w1"].running.update({"a": 1, "b": 1, "c": 1})
    text = status_screen(bench.state, bench.now, {"a": "First thing"})
    assert "Task: First thing (+2)" in text


def test_a_window_without_a_limit_says_so() -> None:
    bench = Bench()
    bench.fold(PolicyChanged(limits=(Limit("global", "tasks", "5h", 0),)))
    text = throttle_screen(bench.state, bench.now)
    assert "  Tokens/hour: 0 / no limit" in text
    assert "  Tasks/5h:    0 / 0            (0.00%)" in text


# -- small parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "amount", "text"),
    [
        ("tokens", 500_000, "500K"),
        ("tokens", 5_000_000, "5M"),
        ("tokens", 1_500_000, "1.5M"),
        ("tokens", 123_456, "123,456"),
        ("tasks", 0, "0"),
        ("money", 5_000_000_000, "$5.00"),
        ("money", 1_000_000_000_000, "$1,000.00"),
    ],
)
def test_limits_read_as_in_the_seed(unit: str, amount: int, text: str) -> None:
    assert limit_text(unit, amount) == text


@pytest.mark.parametrize(
    ("micros", "text"),
    [(-5, "0 ms"), (3_999, "3 ms"), (4_290_000, "4.2 s"), (60_000_000, "1 min"),
     (3_600_000_000, "1 h"), (11_100_000_000, "3 h 5 min"), (187_200_000_000, "2 d 4 h")],
)  # fmt: skip
def test_spans(micros: int, text: str) -> None:
    assert span(micros) == text


def test_tables_fit_the_terminal_and_are_whole_elsewhere() -> None:
    rows = [("t1", "5", "a long text about 🚀 rockets"), ("task22", "12", "short")]
    assert table(("TASK", "N", "TEXT"), rows, right="N").splitlines()[1:] == [
        "t1       5  a long text about 🚀 rockets",
        "task22  12  short",
    ]
    narrow = table(("TASK", "N", "TEXT"), rows, right="N", width=30).splitlines()
    assert narrow[1] == "t1       5  a long text about…"
    assert clip("abc", 3) == "abc"
    assert first_line("\n\n  do  this \n more") == "do this"
