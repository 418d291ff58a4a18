"""The fleet at one moment: its figures equal those of the other screens, and the lines fit."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace
from rich.cells import cell_len

from events.envelope import Event
from events.policy import Limit, PolicyChanged, Share
from events.task import TaskDispatched, TaskStarted
from events.worker import WorkerState
from services.queries.fleet import Overview, Surroundings
from services.queries.overview import overview
from services.queries.status import metrics_view, status_view
from services.queries.timeline import event_row
from services.queries.urgency import ORDER, STALLED_US
from services.screens import fleet
from services.screens.figures import age, bar_cells, money, short, spark
from services.screens.fleet import WIDE
from services.screens.status import agent_lines
from services.screens.text import squeezed
from tests.e2e.cli import ROOT
from tests.unit.test_screens import Bench

HOSTILE = "\x1b]0;owned\x07 \u202e <script>alert(1)</script>\n" + "x" * 300


@pytest.fixture
def bench() -> Bench:
    """Two workers, one at work, two tasks that wait, and tokens spent."""
    made = Bench()
    made.join("w1")
    made.join("w2")
    made.spend("w1", 470_000, 3)
    for task in ("t1", "t2", "t3"):
        made.queue(task)
    made.fold(TaskDispatched("t1", 1, "w1", "1-0", "codex", "sonnet", 2_000, 6_000_000, made.now))
    made.fold(TaskStarted("t1", 1, "1-0"))
    return made


def shown(bench: Bench, beside: Surroundings | None = None, texts: str = "a title") -> Overview:
    titles = dict.fromkeys(bench.state.tasks, texts)
    return overview(bench.state, bench.now, titles, beside or Surroundings())


def test_figures_are_those_of_status_and_metrics(bench: Bench) -> None:
    view = shown(bench)
    status = status_view(bench.state, bench.now, {})
    total = metrics_view(bench.state, bench.now)["total"]
    assert view.as_of == status["as_of"]
    assert (view.tokens, view.cost_nanos) == (status["tokens_used"], status["cost_nanos"])
    assert (view.tokens, view.cost) == (total["tokens"], total["cost"])
    assert (view.level, view.level_reason or None) == (status["level"], status["level_reason"])
    counts = msgspec.to_builtins(view.tasks)
    assert counts == {name: status["tasks"][old] for name, old in _OLD_NAMES.items()}
    windows = {(r.unit, r.window): (r.used, r.held, r.limit, r.percentage) for r in view.windows
               if r.scope == "global"}  # fmt: skip
    assert windows == {
        (r["unit"], r["window"]): (r["used"], r["held"], r["limit"], r["percentage"])
        for r in status["throttle"]
    }


_OLD_NAMES = {
    "waiting": "in_queue",
    "running": "running",
    "submitted": "submitted",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_share_is_shown_beside_its_whole(bench: Bench, width: int) -> None:
    """As `asb limits` has it; the other limits are this bus's own."""
    share = Share("tokens", "hour", "south", "north", 5_000_000, taken={"north": 500_000})
    bench.fold(replace(bench.state.policy, shares=(share,)))
    view = shown(bench)
    wholes = {(r.scope, r.unit, r.window): r.whole for r in view.windows if r.whole}
    assert wholes == {("global", "tokens", "hour"): 5_000_000}
    line, *own = (x.plain for x in fleet.head(view, width) if x.plain.startswith("tokens/hour"))
    assert not any("5.0M" in each for each in own)
    assert (" of 500K of 5.0M" if width >= WIDE else " of 500K ") in line
    assert cell_len(line) <= width


def test_the_burn_says_what_ends_first(bench: Bench) -> None:
    burn = shown(bench).burn
    assert burn.ends_what == "tokens/hour overall"
    assert bench.now < burn.ends_at < bench.now + 3_600_000_000
    assert sum(burn.spark_tokens) == 470_000


def test_the_queue_names_the_oldest_and_why_it_waits(bench: Bench) -> None:
    queue = shown(bench).queue
    assert queue.by_priority == {"critical": 0, "high": 0, "normal": 2, "low": 0}
    assert queue.oldest_task == "t2"
    assert queue.oldest_why == "number 1 in the queue"
    assert [row.task for row in queue.rows] == ["t2", "t3"]


def test_workers_by_urgency_with_their_last_sign(bench: Bench) -> None:
    first, second = shown(bench).workers
    assert (first.worker, first.word, first.evidence, first.task) == (
        "w1",
        "working",
        "started",
        "t1",
    )
    assert (second.worker, second.word, second.evidence) == ("w2", "idle", "joined")
    bench.now += STALLED_US + 1
    assert next((row.worker, row.word) for row in shown(bench).workers) == ("w1", "stalled")


AGENT_STATES = {
    "idle": ("idle", "○", "IDLE", ""),
    "busy": ("busy", "◌", "BUSY", ""),
    "permission": ("asks", "?", "ASKS", "waits for a person: permission for Bash"),
    "limited": ("limited", "~", "IDLE", "is refused by its provider"),
    "dead": ("dead", "×", "DEAD", "has no agent: it is dead"),
    "unknown": ("unknown", "¿", "IDLE", "has an agent of which nothing is known"),
}


@pytest.mark.parametrize("state", AGENT_STATES)
def test_what_an_agent_in_tmux_does_is_said_everywhere_with_evidence_and_age(
    bench: Bench, state: str
) -> None:
    word, mark, status, line = AGENT_STATES[state]
    by = "" if state == "unknown" else "hook"
    about = "Bash" if state == "permission" else ""
    bench.fold(WorkerState("w2", state, bench.now, by, about))
    bench.now += 90_000_000
    row = next(row for row in shown(bench).workers if row.worker == "w2")
    assert (row.word, row.evidence) == (word, by or "silence")
    assert 90_000_000 <= row.sign_age < 91_000_000
    drawn = next(text.plain for text in fleet.workers(shown(bench), 100) if "w2" in text.plain)
    assert drawn.split()[:3] == [mark, "w2", word]
    assert f"{by or 'silence'} " in drawn
    assert "90s" in drawn
    view = next(
        w for w in status_view(bench.state, bench.now, {})["workers"] if w["worker"] == "w2"
    )
    assert view["status"] == status
    assert view["agent_state"]["state"] == state
    assert (view["agent_state"]["age_s"], view["agent_state"]["evidence"]) == (90, by or None)
    said = agent_lines(list(bench.state.workers.values()), bench.now)
    assert bool(said) == bool(line)
    assert all(f"w2 {line}, 1 min (by its {by or 'silence'})" in text for text in said), said


def test_an_agent_that_works_on_a_task_is_at_work_whatever_it_says_of_itself(bench: Bench) -> None:
    for state in ("busy", "idle", "unknown"):
        bench.fold(WorkerState("w1", state, bench.now, "hook"))
        assert shown(bench).workers[0].word == "working"


def test_the_page_has_a_look_for_each_word_of_a_worker() -> None:
    style = (ROOT / "services/web/static/style.css").read_text()
    assert [word for word in ORDER if f".word.{word}" not in style] == []
    assert set(fleet.MARKS) == set(ORDER)


def test_what_waits_for_a_person(bench: Bench) -> None:
    assert [need.text for need in shown(bench).needs] == ["tokens/hour of worker w1 at 472.0%"]
    bench.fold(PolicyChanged(limits=(Limit("global", "tokens", "hour", 5_000_000),)))
    assert shown(bench).needs == []
    needs = shown(bench, Surroundings(dead_letters=3, no_engine="no engine runs")).needs
    assert [need.command for need in needs] == ["asb doctor", "asb deadletter"]
    assert needs[1].text == "3 entries were refused"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_lines_fit_and_hold_nothing_that_a_terminal_obeys(bench: Bench, width: int) -> None:
    view = shown(bench, Surroundings(dead_letters=2, no_engine=HOSTILE), texts=HOSTILE)
    events = [event_row(Event(bench.state.policy, at=bench.now, log_id="1-1"))]
    lines = [
        *fleet.head(view, width),
        *fleet.workers(view, width),
        *fleet.queue(view, width),
        *fleet.running(view, width),
        *fleet.events(events, width),
    ]
    need = fleet.needs(view, width)
    assert need is not None
    for line in [*lines, need]:
        assert line.cell_len <= width, line.plain
        assert not set(line.plain) & {"\x1b", "\x07", "\n", "\u202e"}
    assert "LIVE" not in fleet.once(view, events, width)
    assert "script" in fleet.once(view, events, 140)


def test_figures_for_narrow_places() -> None:
    assert [short(n) for n in (0, 999, 1_000, 12_345, 123_456, 5_000_000)] == [
        *("0", "999", "1.0K", "12.3K", "123K", "5.0M"),
    ]
    assert [money(n) for n in (0, 30_600_000, 1_330_000_000)] == ["$0.00", "$0.0306", "$1.33"]
    ages = (5_000_000, 180_000_000, 11_100_000_000, 360_000_000_000)
    assert [age(a) for a in ages] == ["5s", "3m", "3h05", "4d4h"]
    assert bar_cells(1, 1, 1_000, 10) == (1, 1, 8)
    assert bar_cells(95, 20, 100, 10) == (10, 0, 0)
    assert bar_cells(5, 0, 0, 10) == (10, 0, 0)
    assert spark([0, 1, 8, 4], 4) == " ▁█▄"
    assert (squeezed("concurrent_worker12", 12), cell_len(squeezed("工" * 9, 9))) == (
        "concu…rker12",
        9,
    )
