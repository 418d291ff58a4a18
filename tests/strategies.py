"""Random days of a bus: lists of plain steps, and the interpreter that plays them."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from events.policy import Learning, Limit, PolicyChanged
from projections.records import RUNNING, TaskRecord
from tests.examples import policy
from tests.given import Bus

PROVING = os.environ.get("ASB_TEST_PROVE") == "1"
Step = tuple[Any, ...]


def examples(count: int, proving: int | None = None) -> settings:
    """``count`` examples in CI, many more when proving; the seed is printed on failure."""
    return settings(
        max_examples=(proving or count * 40) if PROVING else count,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


AMOUNTS = {
    "tokens": (0, 900, 3_000, 8_000, 20_000, 100_000),
    "money": (0, 9_000_000, 40_000_000, 200_000_000),
    "tasks": (0, 1, 2, 5, 50),
}
SCOPES = (
    "global",
    "worker",
    "worker:w1",
    "worker:w2",
    "agent",
    "agent:codex",
    "model:sonnet",
    "project",
    "project:shop",
)
WINDOWS = ("hour", "day", "week", "month", "5h", "90m", "3m")
WORKERS = ("w1", "w2", "w3")


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    unit = draw(st.sampled_from(sorted(AMOUNTS)))
    amounts = st.sampled_from(AMOUNTS[unit]) | st.integers(0, AMOUNTS[unit][-1])
    return Limit(draw(st.sampled_from(SCOPES)), unit, draw(st.sampled_from(WINDOWS)), draw(amounts))


@st.composite
def policies(draw: st.DrawFn) -> PolicyChanged:
    """A few limits, small enough to matter."""
    chosen = draw(st.lists(limits(), max_size=4))
    return policy(
        *{(x.scope, x.unit, x.window): x for x in chosen}.values(),
        critical_overdraft=draw(st.sampled_from((False, False, False, True))),
        cache_read_weight_percent=draw(st.sampled_from((0, 0, 10))),
        learning=Learning(min_samples=1_000_000),  # the model does not learn
    )


_index = st.integers(0, 9)
_tokens = st.sampled_from((0, 1, 400, 999, 1_000, 1_001, 2_500, 9_000, 5_000_000))
_maybe_tokens = st.none() | _tokens
_worker = st.sampled_from(WORKERS)
_waits = (1, 4, 5, 6, 29, 61, 130, 599, 601, 3_599, 3_600, 7_261, 86_400, 700_000, 2_700_000)
_submit = st.tuples(
    st.sampled_from(("low", "normal", "normal", "high", "critical")),
    st.sampled_from(("coding", "documentation", "ui", None)),
    st.sampled_from((None, None, "shop", "lab")),
    st.sampled_from((None, 1, 500, 1_000, 2_999, 8_000)),
    st.sampled_from((0, 0, 0, 1, 2)),  # how many tasks it waits for
    st.sampled_from((None, None, None, "w1")),
    st.sampled_from((1, 2, 3)),
)
_join = st.tuples(
    _worker,
    st.integers(1, 3),
    st.sampled_from((None, None, "codex", "claude")),
    st.sampled_from(((), (), ("sonnet",), ("haiku", "sonnet"))),
    st.sampled_from(("", "holds", "take_over", "instance")),  # by what right it takes a name again
    st.sampled_from((True, True, True, False)),
)
_STEPS: dict[str, tuple[int, st.SearchStrategy[Any]]] = {
    # step: how often, and the rest of it
    "submit": (8, _submit),
    "join": (2, _join),
    "start": (5, st.tuples(_index)),
    "usage": (3, st.tuples(_index, _tokens)),
    "complete": (4, st.tuples(_index, _maybe_tokens)),
    "fail": (2, st.tuples(_index, _maybe_tokens, st.booleans())),
    "cancel": (1, st.tuples(_index)),
    "confirm": (1, st.tuples(_index, _maybe_tokens)),
    "late": (2, st.tuples(_index, st.sampled_from(("completed", "failed")), _maybe_tokens)),
    "leave": (1, st.tuples(_worker)),
    "silence": (1, st.tuples(_worker)),
    "pause": (1, st.tuples(_worker)),
    "resume": (1, st.tuples(_worker)),
    "foreign": (1, st.tuples(st.sampled_from(("codex", "claude")), _tokens)),
    "correct": (2, st.tuples(_index, _maybe_tokens, st.booleans())),
    "again": (2, st.tuples(_index)),
    "policy": (1, st.tuples(policies())),
    "wait": (5, st.tuples(st.sampled_from(_waits))),
}
_DECK = tuple(name for name, (often, _) in _STEPS.items() for _ in range(often))


@st.composite
def steps(draw: st.DrawFn, least: int = 10, most: int = 45) -> list[Step]:
    """A day: what happens, in order."""
    names = draw(st.lists(st.sampled_from(_DECK), min_size=least, max_size=most))
    return [(name, *draw(_STEPS[name][1])) for name in names]


class Player:
    """Plays steps on a Bus. Steps name tasks by number, so that any list of them makes sense."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def play(self, step: Step) -> None:
        """Put what the step says into the intakes, or let its time pass; no turn is taken."""
        getattr(self, "_" + step[0])(*step[1:])

    def _send(self, type_: str, /, **data: Any) -> None:
        self.sent.append((type_, data))
        self.bus.send(type_, **data)

    def _running(self, index: int) -> TaskRecord | None:
        found = [t for t in self.bus.state.tasks.values() if t.status in RUNNING]
        found.sort(key=lambda task: task.n)
        return found[index % len(found)] if found else None

    def _submit(self, *chosen: Any) -> None:
        priority, kind, project, estimate, after, worker, most = chosen
        data: dict[str, Any] = {"priority": priority, "max_attempts": most}
        optional = {"kind": kind, "project": project, "worker": worker}
        optional["estimate_tokens"] = estimate
        data.update({name: value for name, value in optional.items() if value is not None})
        if after:
            data["after"] = sorted({*self.bus.state.tasks, *self.bus.state.outcomes})[-after:]
        self._send("task.submitted", text="Do what has to be done", timeout_s=7_200, **data)

    def _join(self, *chosen: Any) -> None:
        worker, capacity, agent, models, right, heartbeat = chosen
        data: dict[str, Any] = {"worker": worker, "capacity": capacity, "heartbeat": heartbeat}
        if agent:
            data["agent"] = agent
        if models:
            data["models"] = models
        if right == "take_over":
            data["take_over"] = True
        if right == "instance":
            data["instance"] = f"the process of {worker}"
        old = self.bus.state.workers.get(worker)
        if right == "holds" and old is not None:
            data["holds"] = [
                {"task": task, "attempt": attempt, "evidence": "its pane is there"}
                for task, attempt in sorted(old.running.items())
            ]
        self._send("worker.joined", **data)

    def _tell(self, kind: str, index: int, tokens: int | None = None, **more: Any) -> None:
        task = self._running(index)
        if task is None:
            return
        if tokens is not None:
            more["usage"] = {"input_tokens": tokens // 2, "output_tokens": tokens - tokens // 2}
        self._send(kind, task=task.id, attempt=task.attempt, session=task.session, **more)

    def _start(self, index: int) -> None:
        self._tell("task.started", index)

    def _usage(self, index: int, tokens: int) -> None:
        self._tell("usage.recorded", index, tokens, agent="codex")

    def _complete(self, index: int, tokens: int | None) -> None:
        self._tell("task.completed", index, tokens, result="done")

    def _fail(self, index: int, tokens: int | None, retryable: bool) -> None:
        self._tell("task.failed", index, tokens, error="no luck", retryable=retryable)

    def _confirm(self, index: int, tokens: int | None) -> None:
        self._tell("task.cancelled", index, tokens)

    def _cancel(self, index: int) -> None:
        found = sorted(self.bus.state.tasks)
        if found:
            self._send("task.cancel_requested", task=found[index % len(found)])

    def _late(self, index: int, how: str, tokens: int | None) -> None:
        """An attempt that ended without its worker's word is heard of after all."""
        records = {**self.bus.state.tasks, **self.bus.state.outcomes}
        found = [(name, past) for name in sorted(records) for past in records[name].past]
        if not found:
            return
        name, past = found[index % len(found)]
        data: dict[str, Any] = {"task": name, "attempt": past.attempt, "session": past.session}
        if tokens is not None:
            data["usage"] = {"total_tokens": tokens}
        self._send(f"task.{how}", **data)

    def _leave(self, worker: str) -> None:
        self._send("worker.left", worker=worker)

    def _silence(self, worker: str) -> None:
        self.bus.silent.add(worker)

    def _pause(self, worker: str) -> None:
        self._send("worker.paused", worker=worker)

    def _resume(self, worker: str) -> None:
        self._send("worker.resumed", worker=worker)

    def _foreign(self, agent: str, tokens: int) -> None:
        self._send("usage.recorded", agent=agent, model="sonnet", input_tokens=tokens)

    def _correct(self, index: int, tokens: int | None, accept: bool) -> None:
        """An operator corrects what an attempt or a foreign report was charged."""
        state = self.bus.state
        found = [(name, n + 1) for name, t in state.tasks.items() for n in range(t.attempt)]
        found += [(name, o.attempt) for name, o in state.outcomes.items()]
        found += [(key, 0) for key, charge in state.disputes.items() if not charge.attempt]
        if not found:
            return
        name, attempt = sorted(found)[index % len(found)]
        how: dict[str, Any] = {"accept": True} if accept else {"drop": True}
        if tokens is not None:
            how = {"tokens": tokens}
        self._send("usage.corrected", task=name, attempt=attempt, reason="a slip", **how)

    def _again(self, index: int) -> None:
        """An earlier entry comes once more, as a new entry without an id of its own."""
        reported = [one for one in self.sent if one[0].startswith(("task.c", "task.f", "task.s"))]
        reported = [one for one in reported if one[0] != "task.submitted"]
        if reported:
            kind, data = reported[-1 - index % len(reported)]
            self.bus.send(kind, **data)

    def _policy(self, changed: PolicyChanged) -> None:
        """All limits of before go, those of ``changed`` come."""
        new = {(x.scope, x.unit, x.window): x.amount for x in changed.limits}
        old = {(x.scope, x.unit, x.window) for x in self.bus.state.policy.limits}
        names = ("scope", "unit", "window")
        data: dict[str, Any] = {
            "remove_limits": [dict(zip(names, x, strict=True)) for x in sorted(old - {*new})],
            "set_limits": [
                {**dict(zip(names, x, strict=True)), "amount": amount} for x, amount in new.items()
            ],
            "critical_overdraft": changed.critical_overdraft,
            "cache_read_weight_percent": changed.cache_read_weight_percent,
        }
        self._send("policy.changed", **data)

    def _wait(self, seconds: int) -> None:
        self.bus.now += seconds * 1_000_000
