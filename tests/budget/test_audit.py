"""The audit: it agrees with every log the engine writes, and names the event that breaks a rule.

It is judged both ways: random days of a bus must pass it, with the same sums as the folds; and a
log that was tampered with must not.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from events.policy import Learning, PolicyChanged
from projections import budgets, usage
from services.audit.check import Audit
from services.queries.conservation import books
from tests.examples import limit, policy
from tests.given import Bus
from tests.strategies import Player, Step, examples, policies, steps

Data = dict[str, Any]
AUDIT = Path(__file__).resolve().parents[2] / "services" / "audit"


def audited(log: list[list[Any]]) -> Audit:
    audit = Audit()
    for entry in log:
        audit.feed(entry)
    return audit


def played(first: PolicyChanged, day: list[Step]) -> Bus:
    bus = Bus(first)
    player = Player(bus)
    for step in (*(("join", w, 2, None, (), "", True) for w in ("w1", "w2")), *day):
        player.play(step)
        bus.run()
    return bus


# -- it agrees ---------------------------------------------------------------------------------


@examples(80)
@given(policies(), steps())
def test_the_log_of_any_day_passes_and_adds_up_as_the_folds_do(
    first: PolicyChanged, day: list[Step]
) -> None:
    bus = played(first, day)
    audit = audited(bus.log)
    assert audit.findings == []
    total = usage.total(bus.state.lifetime.values())
    assert audit.total[:2] == [total.tokens, total.nanos]
    running = [t for t in bus.state.tasks.values() if t.status in ("dispatched", "started")]
    assert audit.open_holds == len(running)
    for row in budgets.window_rows(bus.state, bus.now):
        found = audit.ledger.standing(row["scope"], row["unit"], row["window"], bus.now)
        assert found == (row["used"], row["held"]), row


def test_the_audit_shares_no_code_with_the_folds() -> None:
    """Neither imports anything of asb but each other."""
    for name in ("check.py", "charges.py", "ledger.py"):
        tree = ast.parse((AUDIT / name).read_text())
        named = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        named += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        ours = [m for m in named if m.split(".")[0] in ("events", "projections", "services")]
        assert set(ours) <= {"services.audit.charges", "services.audit.ledger"}, name


# -- it finds ----------------------------------------------------------------------------------


def _day() -> Bus:
    """Two tasks done, one running with its hold raised, one waiting; levels were said."""
    # Half of what is asked next fits; 600 tokens a step is what the guard adds.
    first = policy(limit("global", "tokens", "day", 6_000), learning=Learning(min_samples=10_000))
    bus = Bus(first)
    bus.join("w1", capacity=5)
    ids = [bus.submit(f"Fix bug {n}", priority="critical") for n in range(3)]
    bus.run()
    for task in ids[:2]:
        bus.report("task.started", task)
        bus.run()
        bus.report("task.completed", task, usage={"input_tokens": 1_300})
        bus.run()
    bus.report("task.started", ids[2])
    bus.report("usage.recorded", ids[2], agent="codex", input_tokens=1_100)
    bus.run()
    bus.submit("Fix another bug", priority="critical")
    bus.run()
    assert bus.of("hold.extended")
    assert bus.of("alert.raised")
    assert audited(bus.log).findings == []
    return bus


def _change(log: list[list[Any]], kind: str, change: Callable[[Data], None], nth: int = 0) -> str:
    """Change the nth event of a type in place; its log id."""
    found = [entry for entry in log if entry[1][1].decode() == kind][nth]
    data = json.loads(found[1][11])
    change(data)
    found[1][11] = json.dumps(data).encode()
    return found[0].decode()


def _again(log: list[list[Any]], kind: str) -> str:
    """The first event of a type once more, at the end of the log."""
    found = next(entry for entry in log if entry[1][1].decode() == kind)
    log.append([b"9999999999999-0", list(found[1])])
    return "9999999999999-0"


def _set(**values: Any) -> Callable[[Data], None]:
    return lambda data: data.update(values)


TAMPERED: dict[str, tuple[str, Callable[[list[list[Any]]], str]]] = {
    "a dispatch beyond the limit": (
        "limit",
        lambda log: _change(log, "task.dispatched", _set(hold_tokens=9_000)),
    ),
    "an extension beyond the limit": (
        "limit",
        lambda log: _change(log, "hold.extended", _set(tokens=7_000)),
    ),
    "an attempt dispatched twice": ("attempt", lambda log: _again(log, "task.dispatched")),
    "an attempt that skips a number": (
        "attempt",
        lambda log: _change(log, "task.dispatched", _set(attempt=2)),
    ),
    "a task completed twice": ("task", lambda log: _again(log, "task.completed")),
    "a task taken in twice": ("task", lambda log: _again(log, "task.submitted")),
    "a hold released though its task had begun": (
        "hold",
        lambda log: _change(log, "task.completed", lambda d: d.pop("charged")),
    ),
    "an estimate that is not what was held": (
        "hold",
        lambda log: _change(log, "task.completed", lambda d: d["charged"].update(estimated=True)),
    ),
    "an alert said twice": ("alert", lambda log: _again(log, "alert.raised")),
    "an alert that says a wrong figure": (
        "alert",
        lambda log: _change(log, "alert.raised", lambda d: d.update(usage=d["usage"] + 1)),
    ),
    "an alert of the wrong window": (
        "alert",
        lambda log: _change(log, "alert.raised", lambda d: d.update(instance=0)),
    ),
    "an entry that is no event": (
        "shape",
        lambda log: _change(log, "task.dispatched", lambda d: d.pop("worker")),
    ),
}


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_it_names_the_event_that_breaks_a_rule(what: str) -> None:
    rule, tamper = TAMPERED[what]
    log = [[entry[0], list(entry[1])] for entry in _day().log]
    place = tamper(log)
    findings = audited(log).findings
    assert findings
    assert (findings[0].log_id, findings[0].rule) == (place, rule), findings


def test_one_token_over_the_gate_is_found_and_one_below_is_not() -> None:
    """A normal task must stay below 95 %: 949 of 1,000 may stand, 950 may not."""
    bus = Bus(policy(limit("global", "tokens", "hour", 1_000)))
    bus.join("w1")
    bus.submit(estimate_tokens=949)
    bus.run()
    assert len(bus.of("task.dispatched")) == 1
    assert audited(bus.log).findings == []
    _change(bus.log, "task.dispatched", _set(hold_tokens=950))
    assert [f.rule for f in audited(bus.log).findings] == ["limit", "alert"]


# -- through limits, corrections and disputes ----------------------------------------------------


def _corrected_day() -> Bus:
    """A limit of 5,000 tokens; a report of 8,000 above a bound of 3,000; the rest is disputed,
    then another 1,000 is what the operator says; the limit is lowered; another task runs."""
    first = policy(
        limit("global", "tokens", "day", 5_000),
        plausible_tokens=3_000,
        learning=Learning(min_samples=10_000),
    )
    bus = Bus(first)
    bus.join("w1", capacity=5)
    done = bus.submit(priority="critical", estimate_tokens=1_000)
    bus.run()
    bus.report("task.started", done)
    bus.report("task.completed", done, usage={"input_tokens": 8_000})
    bus.run()
    bus.submit(priority="critical", estimate_tokens=2_000)
    bus.run()
    assert len(bus.of("task.dispatched")) == 2, "5,000 admit 3,000 used and 2,000 asked"
    bus.submit(priority="critical", estimate_tokens=500)
    bus.run()
    bus.send("usage.corrected", task=done, attempt=1, tokens=1_000, reason="a slip")
    bus.run()
    assert len(bus.of("task.dispatched")) == 3, "what was given back is there for others"
    lowered = {"scope": "global", "unit": "tokens", "window": "day", "amount": 4_000}
    bus.send("policy.changed", set_limits=[lowered])
    bus.run()
    bus.submit(priority="critical", estimate_tokens=400)
    bus.run()
    assert len(bus.of("task.dispatched")) == 4
    audit = audited(bus.log)
    assert (audit.findings, audit.checked["corrections"]) == ([], 1)
    return bus


def _source(log: list[list[Any]], kind: str, source: str) -> str:
    found = next(entry for entry in log if entry[1][1].decode() == kind)
    found[1][5] = source.encode()
    return found[0].decode()


def _booked(**values: Any) -> Callable[[Data], None]:
    return lambda data: data["charged"].update(values)


PLANTED: dict[str, tuple[str, Callable[[list[list[Any]]], str]]] = {
    "an overshoot after a limit was lowered": (
        "limit",
        lambda log: _change(log, "task.dispatched", _set(hold_tokens=501), nth=3),
    ),
    "an overshoot of what a correction gave back": (
        "limit",
        lambda log: _change(log, "task.dispatched", _set(hold_tokens=2_001), nth=2),
    ),
    "a report that charges more than the bound": (
        "plausible",
        lambda log: _change(log, "task.completed", _booked(tokens=3_001)),
    ),
    "a correction through a named stream": (
        "correct",
        lambda log: _source(log, "usage.corrected", "asb:intake:w1"),
    ),
    "a correction that gives back too much": (
        "correct",
        lambda log: _change(log, "usage.corrected", _booked(tokens=-3_001)),
    ),
    "a correction that leaves something disputed": (
        "correct",
        lambda log: _change(log, "usage.corrected", _booked(disputed_tokens=-1)),
    ),
    "a drop that charges something": (
        "correct",
        lambda log: _change(log, "usage.corrected", _set(action="drop")),
    ),
    "a correction of what still runs": (
        "correct",
        lambda log: _change(log, "usage.corrected", _running(log)),
    ),
}


def _running(log: list[list[Any]]) -> Callable[[Data], None]:
    """Names the second dispatched task, which still runs, and takes nothing from it."""
    second = [entry for entry in log if entry[1][1] == b"task.dispatched"][1]
    task = json.loads(second[1][11])["task"]
    return lambda data: data.update(task=task, charged={"agent": "codex"})


@pytest.mark.parametrize("what", sorted(PLANTED))
def test_an_overshoot_planted_behind_limits_corrections_and_disputes_is_found(what: str) -> None:
    rule, plant = PLANTED[what]
    log = [[entry[0], list(entry[1])] for entry in _corrected_day().log]
    place = plant(log)
    findings = audited(log).findings
    assert (place, rule) in [(f.log_id, f.rule) for f in findings], findings


def test_a_dispute_that_the_fold_would_lose_is_seen() -> None:
    bus = Bus(policy(plausible_tokens=100))
    bus.send("usage.recorded", agent="codex", model="sonnet", input_tokens=500)
    bus.run()
    audit = audited(bus.log)
    assert all(row.good for row in books(audit, bus.state))
    bus.state.disputes.clear()
    assert [r.name for r in books(audit, bus.state) if not r.good] == ["disputed"]
