"""T16, T17, T18, T22, T23, T35: the log gives one answer, and bad or repeated input none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import decode
from events.keys import Keys
from events.policy import Learning
from events.task import Charge
from projections import buckets, budgets, fold, usage, views
from projections.report_views import day_report
from projections.state import State, decode_state
from services.queries.verify import fold_in_turns
from services.runtime import initial_policy
from services.runtime.settings import load
from services.store.client import SyncClient
from services.store.rebuild import decoded
from tests.bench.history import History
from tests.budget.ground import PROVING, Rivals, audit_of, often, say
from tests.examples import NOON, SECOND, limit, policy
from tests.given import Bus
from tests.integration.test_engine_ground import Bus as RealBus
from tests.integration.test_engine_ground import Hands, running
from tests.integration.test_engine_ground import limit as setting
from tests.wait import stays, wait_until

ROOT = Path(__file__).resolve().parents[2]


def _busy(seed: int, rounds: int = 60) -> Bus:
    """A long enough day with everything in it that a bus sees."""
    chance = random.Random(seed)
    bus = Bus(policy(limit("global", "tokens", "hour", 20_000), timezone="Asia/Kathmandu"))
    for worker in ("w1", "w2", "wörker"):
        bus.join(worker, capacity=3)
    for n in range(rounds):
        for _ in range(chance.randrange(4)):
            bus.submit(f"fix bug {n}", project=chance.choice(["shop", "zoë", None]))
        bus.run()
        for task in [t for t in bus.state.tasks.values() if t.session]:
            kind = chance.choice(["started", "completed", "failed", "cancelled"])
            bus.report(f"task.{kind}", task.id, usage={"input_tokens": chance.randrange(2_500)})
        bus.wait(chance.choice([0, 1, 600, 4_000]))
    return bus


def _everything(state: State) -> str:
    """One digest of the state, windows, totals, reports and alerts."""
    now = state.meta.at
    seen: list[Any] = [
        state.digest(),
        views.throttle_view(state, now),
        views.token_usage_view(state),
        [day_report(state, day) for day in sorted(state.days)],
        sorted((key, r.instance, r.level) for key, r in state.raised.items()),
    ]
    return hashlib.sha256(msgspec.json.encode(seen)).hexdigest()


# -- T16 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_of_any_size_give_the_same_bytes(size: int) -> None:
    bus = _busy(16)
    state = State()
    fold_in_turns(state, [decode(entry) for entry in bus.log], size)
    assert _everything(state) == _everything(bus.state)


def test_crashes_and_snapshots_anywhere_give_the_same_bytes() -> None:
    bus, chance = _busy(16), random.Random(16)
    state = State()
    crashes = set(chance.sample(range(len(bus.log)), 50))
    for n, entry in enumerate(bus.log):
        if n in crashes:  # all memory is lost but the snapshot
            kept = decode_state(state.encode())
            assert kept is not None
            state = kept
        fold.apply(state, decode(entry))
    assert _everything(state) == _everything(bus.state)


def test_two_engines_that_compete_end_with_the_same_bytes() -> None:
    bus = Rivals(policy(limit("global", "tokens", "day", 5_000)), engines=2, seed=16)
    for worker in ("w1", "w2"):
        bus.join(worker, capacity=3)
    for n in range(20):
        bus.submit(f"fix {n}")
        bus.wait(30)
    assert bus.conflicts > 0
    assert len({_everything(state) for state in bus.states}) == 1


# Fold the log in a file, print the digest: for other processes than this one.
PROGRAM = """
import json, sys
from events.envelope import decode
from projections import fold
from projections.state import State
from tests.budget.test_replay import _everything
state = State()
for place, fields in json.load(open(sys.argv[1])):
    fold.apply(state, decode([place.encode(), [f.encode() for f in fields]]))
print(_everything(state))
"""
ELSEWHERE = {
    "another hash seed": {"PYTHONHASHSEED": "4711"},
    "another zone and language": {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONUTF8": "1"},
}


@pytest.mark.parametrize("where", sorted(ELSEWHERE))
def test_another_process_elsewhere_gives_the_same_bytes(where: str, tmp_path: Path) -> None:
    bus = _busy(16)
    file = tmp_path / "log.json"
    entries = [[entry[0].decode(), [f.decode() for f in entry[1]]] for entry in bus.log]
    file.write_bytes(msgspec.json.encode(entries))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)],
        cwd=ROOT,
        env={**os.environ, **ELSEWHERE[where]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == _everything(bus.state)


@pytest.mark.timeout(3_600 if PROVING else 60)
def test_a_long_log_gives_the_same_bytes_in_every_batch_size(
    redis_url: str, namespace: str
) -> None:
    """A million events when proving."""
    keys, events = Keys(namespace), often(6_000, 1_000_000)
    with contextlib.closing(SyncClient(redis_url)) as client:
        first = initial_policy.policy(load(environ={"HOME": "/nowhere"}))
        history = History(client, keys, events, first)
        history.grow(events)
        digests: set[str] = set()
        for size in (1, 7, 1000):
            state, cursor = State(), "0-0"
            while entries := client.call("XRANGE", keys.log, f"({cursor}", "+", "COUNT", 1000):
                fold_in_turns(state, decoded(entries), size)
                cursor = entries[-1][0].decode()
            digests.add(_everything(state))
            assert state.meta.events == history.events
    say(f"long log: {history.events:,} events, batches of 1, 7 and 1000")
    assert len(digests) == 1


# -- T17, T18 ----------------------------------------------------------------------------------


def test_repeats_in_any_order_and_after_any_time_change_nothing() -> None:
    """Each entry is delivered one to five times, once again after 25 hours, and once again after
    many entries of the same writer."""
    chance = random.Random(17)
    bus = Bus(policy())
    facts: list[dict[str, Any]] = [
        {"agent": "codex", "input_tokens": n, "model": "sonnet", "given_id": f"u{n}"}
        for n in range(1, 101)
    ]
    sent = [fact for fact in facts for _ in range(chance.randrange(1, 6))]
    chance.shuffle(sent)
    for fact in sent:
        bus.send("usage.recorded", **fact)
    bus.run()
    want = sum(range(1, 101))
    assert usage.total(bus.state.lifetime.values()).tokens == want
    bus.now += 25 * 3_600 * SECOND
    others = often(500, 10_001)
    for n in range(others):
        bus.send("usage.recorded", agent="codex", input_tokens=0, given_id=f"other{n}")
    for fact in facts:
        bus.send("usage.recorded", **fact)
    bus.run()
    assert usage.total(bus.state.lifetime.values()).tokens == want
    assert bus.refused == []
    assert audit_of(bus.log).findings == []


def test_the_same_id_with_other_content_is_refused_and_kept() -> None:
    bus = Bus(policy())
    for tokens in (100, 900):
        bus.send("usage.recorded", agent="codex", input_tokens=tokens, given_id="u1")
        bus.run()
    assert usage.total(bus.state.lifetime.values()).tokens == 100
    assert [r.error for r in bus.refused] == ["id 'u1' was used before, with other content"]


# -- T22 ---------------------------------------------------------------------------------------


POISON: dict[str, dict[str, Any]] = {
    "no tokens": {"agent": "codex"},
    "no agent": {"input_tokens": 5},
    "negative": {"agent": "codex", "input_tokens": -5},
    "too large": {"agent": "codex", "input_tokens": 2**63},
    "not a number": {"agent": "codex", "input_tokens": "NaN"},
    "a fraction": {"agent": "codex", "input_tokens": 1.5},
    "true": {"agent": "codex", "input_tokens": True},
    "infinite cost": {"agent": "codex", "input_tokens": 1, "cost_usd": "Infinity"},
    "negative cost": {"agent": "codex", "input_tokens": 1, "cost_usd": -1},
    "a list": {"agent": "codex", "usage": [1, 2]},
}


@pytest.mark.parametrize("what", sorted(POISON))
def test_one_bad_fact_among_many_is_set_aside_with_its_reason(what: str) -> None:
    """Through real intakes: ``tests/integration/test_engine_poison.py``."""
    bus = Bus(policy())
    for n in range(often(20, 10_000)):
        if n == 10:
            bus.send("usage.recorded", **POISON[what])
        bus.send("usage.recorded", agent="codex", input_tokens=10, model="sonnet")
    bus.run()
    assert usage.total(bus.state.lifetime.values()).tokens == 10 * often(20, 10_000)
    assert len(bus.refused) == 1
    assert bus.refused[0].error


def test_bytes_that_are_no_text_and_a_huge_entry_are_set_aside() -> None:
    bus = Bus(policy())
    bus.put([b"type", b"usage.recorded", b"agent", b"\xff\xfe", b"input_tokens", b"5"])
    bus.put([b"type", b"usage.recorded", b"data", b'{"agent":"' + b"x" * 5_000_000 + b'"}'])
    bus.run()
    assert bus.of("usage.recorded") == []
    assert len(bus.refused) == 2


# -- T23 ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_after_a_crash_nothing_is_admitted_before_the_log_is_folded(
    redis_url: str, namespace: str
) -> None:
    """The budget is used up, the engine dies, tasks come; the engine that starts knows the budget
    before it decides anything."""
    bus = RealBus(redis_url, namespace, limits=(setting("global", "tokens", "month", 5_000),))
    async with running(bus.host()):
        worker = await Hands(bus).join(capacity=50)
        await bus.tell("usage.recorded", agent="codex", total_tokens=4_700)
        await wait_until(lambda: bus.events("usage.recorded"))
    tasks = await bus.submit_many(often(30, 300))
    async with running(bus.host(), bus.host()):
        await wait_until(lambda: all(t in bus.folded().tasks for t in tasks), within=20)
        await stays(lambda: not bus.events("task.dispatched"), during=0.3)
        assert await worker.inbox() == []
    await bus.close()


# -- T35 ---------------------------------------------------------------------------------------


def test_the_smallest_coin_adds_up_exactly() -> None:
    """Charges of one nano-dollar: ten million of them are a cent, and not nearly one."""
    times = often(2_000, 10_000_000)
    state = Bus(policy()).state
    one = Charge("codex", "x", tokens=1, nanos=1)
    for _ in range(times):
        buckets.charge(state, NOON, one)
        usage.charge(state, NOON, one)
    assert usage.total(state.lifetime.values()).nanos == times
    assert budgets.used(state, "global", "day", NOON).nanos == times


def test_no_number_that_is_kept_has_a_fraction() -> None:
    """Every number of the state, the views and the log is an integer."""
    bus = _busy(35)
    for entry in bus.log:
        _only_integers(msgspec.json.decode(entry[1][11]))
    _only_integers(msgspec.msgpack.decode(bus.state.encode(), strict=False))
    _only_integers(views.throttle_view(bus.state, bus.now))
    _only_integers(views.token_usage_view(bus.state))
    _only_integers([day_report(bus.state, day) for day in bus.state.days])


def _only_integers(value: Any) -> None:
    assert not isinstance(value, float), value
    if isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            _only_integers(key)
            _only_integers(inner)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            _only_integers(inner)


def test_learning_never_holds_more_than_its_share_of_a_limit() -> None:
    """After attempts that used far more than the limit's share, half of it is what is asked."""
    learning = Learning(min_samples=3, percentile=90, share_percent=50)
    bus = Bus(policy(limit("project", "tokens", "day", 4_000), learning=learning))
    bus.join("w1", capacity=9)
    for _ in range(4):
        task = bus.submit("Fix the login form")
        bus.run()
        bus.report("task.completed", task, usage={"input_tokens": 50_000})
        bus.run()
    bus.submit("Fix the login form", project="shop")
    bus.run()
    assert bus.of("task.dispatched")[-1].hold_tokens == 2_000


@pytest.mark.parametrize("given", [False, True])
def test_a_first_guess_is_bounded_by_a_share_of_a_limit_and_a_given_estimate_is_not(
    given: bool,
) -> None:
    """What nobody has learnt yet: a long prompt is guessed at 11,000 tokens. As a guess it holds
    half the limit; as the user's own word it is what it is, and can never fit."""
    bus = Bus(policy(limit("global", "tokens", "day", 4_000)))
    bus.join("w1")
    bus.submit("Fix it. " * 5_000, **({"estimate_tokens": 11_000} if given else {}))
    bus.run()
    assert [d.hold_tokens for d in bus.of("task.dispatched")] == ([] if given else [2_000])
    assert len(bus.of("task.deferred")) == given
    assert audit_of(bus.log).findings == []


@pytest.mark.parametrize("unit", ["tokens", "money"])
def test_a_guess_never_fits_below_a_limit_of_0(unit: str) -> None:
    bus = Bus(policy(limit("global", unit, "day", 0)))
    bus.join("w1")
    bus.submit()
    bus.run()
    assert len(bus.of("task.deferred")) == 1
