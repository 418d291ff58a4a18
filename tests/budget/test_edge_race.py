"""T1, T3: many ask for the last of a budget at once, over a real Redis.

Each round starts below the gate of one priority, with room for exactly ``FIT`` tasks. Several
submitters race for it through the intakes, several hosts decide at the same time (all of them
active, none stands by), and real workers do what is dispatched. A round with an overshoot of one
token, or with a task less than fits, fails; so does a run in which the hosts never collided.
"""

from __future__ import annotations

from decimal import Decimal

import anyio
import msgspec
import pytest

from events.task import PRIORITIES
from projections import budgets
from services.runtime.settings_types import LimitSetting
from services.store.client import Client
from services.worker import Result, Task, Usage
from tests.budget.ground import PROVING, audit_of, often, raw_log, say
from tests.integration.test_engine_ground import Bus, Hands, proven, running, working
from tests.wait import stays, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3_600 if PROVING else 60)]

LIMIT, EACH, FIT = 100_000, 100, 10
TASKS = often(40, 200)  # a round
ROUNDS = often(8, 1_000)
SUBMITTERS, HOSTS = 4, 3


async def _uses_all(_task: Task) -> Result:
    """Work that uses exactly what is held for it, so that used + held stays as it is."""
    return Result("ok", Usage(input_tokens=EACH - 40, output_tokens=40))


@pytest.fixture
def all_hosts_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host stands by: each acts on whatever it sees."""
    monkeypatch.setattr("services.engine.standby.STANDBY_S", -1e9)


async def _submit(bus: Bus, project: str, priority: str, count: int) -> list[str]:
    """``count`` tasks from several submitters, each with a connection of its own."""
    clients = [Client(bus.url) for _ in range(SUBMITTERS)]
    data = {"project": project, "priority": priority, "estimate_tokens": EACH, "max_attempts": 1}
    found: list[str] = []

    async def one(client: Client, share: range) -> None:
        replies = await client.pipeline(
            (
                *("XADD", bus.keys.main_intake, "*", "type", "task.submitted", "data"),
                msgspec.json.encode({"text": f"fix bug {n}", **data}),
            )
            for n in share
        )
        found.extend(reply.decode() for reply in replies)

    async with anyio.create_task_group() as group:
        for n, client in enumerate(clients):
            group.start_soon(one, client, range(n, count, SUBMITTERS))
    for client in clients:
        await client.close()
    return found


async def test_the_last_of_a_budget_is_given_out_exactly_once(
    redis_url: str, namespace: str, all_hosts_decide: None
) -> None:
    per_project = LimitSetting(
        scope="project", unit="tokens", window="month", amount=Decimal(LIMIT)
    )
    bus = Bus(redis_url, namespace, limits=(per_project,))
    hosts = [bus.host() for _ in range(HOSTS)]
    admitted = 0
    async with running(*hosts), working(bus, "w1", "w2", "w3", capacity=50, handler=_uses_all):
        for number in range(ROUNDS):
            priority = number % len(PRIORITIES)
            gate = budgets.gate(priority, LIMIT)
            project = f"p{number}"
            start = gate - FIT * EACH - number % EACH  # room for FIT and never for one more
            await bus.tell("usage.recorded", agent="codex", project=project, total_tokens=start)
            tasks = await _submit(bus, project, PRIORITIES[priority], TASKS)
            key, want = f"project:{project}", start + FIT * EACH

            def all_taken_in(want: int = want, key: str = key, tasks: list[str] = tasks) -> bool:
                state = hosts[0].state
                scope = state.scopes.get(key)
                if scope is None or state.ahead:
                    return False
                spent = sum(bucket.tokens for bucket in scope.hours.values())
                known = all(t in state.tasks or t in state.outcomes for t in tasks[-SUBMITTERS:])
                return known and spent == want and scope.held_tokens == 0

            await wait_until(all_taken_in, within=20, what=f"round {number} is full to the gate")
            admitted += FIT
            state = hosts[0].state
            for task in tasks:
                if task in state.tasks:
                    await bus.tell("task.cancel_requested", task=task)
            await wait_until(lambda: not hosts[0].state.tasks, within=20, what="a clean table")
        last = await hosts[0].log.last_id()
        await wait_until(lambda: all(h.state.meta.log_id >= last for h in hosts), within=10)
    found = proven(bus)
    audit = audit_of(raw_log(redis_url, bus.keys.log))
    conflicts = sum(host.stats.conflicts for host in hosts)
    say(
        f"edge race: {ROUNDS} rounds of {TASKS} tasks, {SUBMITTERS} submitters, {HOSTS} hosts, "
        f"3 workers: {admitted:,} admitted, {conflicts:,} conflicts, "
        f"{audit.checked['windows']:,} windows checked, {audit.broken} broken"
    )
    await bus.close()
    assert audit.findings == []
    assert audit.checked["dispatches"] == len(found.dispatched) == admitted
    assert conflicts > 0, "the hosts never collided: this run proves nothing"


async def test_many_first_asks_of_a_worker_never_seen_get_what_fits(
    redis_url: str, namespace: str, all_hosts_decide: None
) -> None:
    """T3: 64 tasks wait for a worker nobody knows; its limit has room for three of them."""
    own = LimitSetting(scope="worker:new", unit="tokens", window="month", amount=Decimal(4_000))
    bus = Bus(redis_url, namespace, limits=(own,))
    hosts = [bus.host() for _ in range(2)]
    async with running(*hosts):
        tasks = await bus.submit_many(64, worker="new", estimate_tokens=1_200)
        await wait_until(lambda: all(t in hosts[0].state.tasks for t in tasks), within=10)
        await Hands(bus, "new").join(capacity=64)
        await wait_until(lambda: len(bus.events("task.dispatched")) == 3, within=10)
        await stays(lambda: len(bus.events("task.dispatched")) == 3, during=0.3)
    audit = audit_of(raw_log(redis_url, bus.keys.log))
    await bus.close()
    assert audit.findings == []
    assert audit.open_holds == 3
