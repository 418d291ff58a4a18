"""A worker at work: joining, doing, cancelling, reporting, leaving. The engine is a scripted
one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from events.keys import Keys
from events.worker import WorkerHeartbeat
from services.runtime.errors import AsbError, ConfigError, RedisUnsuitable
from services.store.client import Client
from services.worker import PermanentError, Result, Task, Usage, WorkerOptions, identity, serve
from services.worker.python import FunctionDriver
from services.worker.task import Driver
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio

Handler = Callable[[Task], Awaitable[Result | str | None]]


class Engine:
    """Plays the engine: dispatches into the inbox, reads the intake."""

    def __init__(self, client: Client, keys: Keys, worker: str = "w1", intake: str | None = None):
        self.client = client
        self.keys = keys
        self.worker = worker
        self.intake = keys.intake(intake)
        self.session = ""
        self.words = 0

    async def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All that came to the intake: entry id, type, data."""
        found = await self.client.call("XRANGE", self.intake, "-", "+")
        return [(i.decode(), f[1].decode(), msgspec.json.decode(f[3])) for i, f in found]

    async def reports(self, kind: str = "", task: str = "") -> list[dict[str, Any]]:
        return [
            data
            for _, found, data in await self.entries()
            if found.startswith(kind) and (not task or data.get("task") == task)
        ]

    async def joined(self, times: int = 1) -> str:
        """Wait for the ``times``-th worker.joined; its session is dispatched to from here on."""

        async def look() -> str:
            sessions = [i for i, kind, _ in await self.entries() if kind == "worker.joined"]
            return sessions[times - 1] if len(sessions) >= times else ""

        self.session = await wait_until(look, what="worker.joined", within=10)
        return self.session

    async def dispatch(self, task: str, text: str = "do it", **fields: Any) -> None:
        known: dict[str, Any] = {
            "type": "task.dispatched",
            "task": task,
            "attempt": 1,
            "session": self.session,
            "text": text,
            "kind": "coding",
            "agent": "codex",
            "model": "sonnet",
            "deadline": int((time.time() + 7200) * 1e6),
            "priority": "normal",
            "log": "1-1",
        }
        await self.tell(**{**known, **fields})

    async def cancel(self, task: str, reason: str = "by hand") -> None:
        await self.tell(
            type="task.cancel_requested",
            task=task,
            attempt=1,
            session=self.session,
            reason=reason,
        )

    async def hold(self, kind: str, task: str, **fields: Any) -> None:
        self.words += 1
        known = {"task": task, "attempt": 1, "session": self.session, "reason": "full"}
        await self.tell(log=f"9-{self.words}", type=kind, **{**known, **fields})

    async def tell(self, **fields: Any) -> None:
        flat = [part for pair in fields.items() for part in pair]
        await self.client.call("XADD", self.keys.inbox(self.worker), "*", *flat)

    async def report(self, kind: str, task: str = "", within: float = 10) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            found = await self.reports(kind, task)
            return found[0] if found else {}

        return await wait_until(look, within=within, what=f"{kind} of {task}")


def options(driver: Driver | Handler, **changed: Any) -> WorkerOptions:
    if not hasattr(driver, "renewed"):
        driver = FunctionDriver(driver)  # type: ignore[arg-type]
    settings: dict[str, Any] = {"name": "w1", "capacity": 4, "grace_s": 0.2, **changed}
    return WorkerOptions(driver=driver, **settings)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def working(client: Client, keys: Keys, settings: WorkerOptions) -> AsyncGenerator[Engine]:
    """A worker beside the test, told to stop at the end."""
    stop = anyio.Event()
    engine = Engine(client, keys, settings.name, settings.intake)

    async def work() -> None:
        await serve(settings, keys, client, stop=stop)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await engine.joined()
        yield engine
        stop.set()


async def shout(task: Task) -> str:
    return task.text.upper()


async def for_ever(task: Task) -> None:
    await anyio.sleep_forever()


# -- joining -----------------------------------------------------------------------------------


async def test_a_worker_announces_what_it_serves(client: Client, keys: Keys) -> None:
    settings = options(shout, agent="codex", models=("sonnet",), account="a1", lease_s=30)
    async with working(client, keys, settings) as engine:
        said = await engine.report("worker.joined")
        assert re.fullmatch(r"[0-9a-f]{16}", said.pop("instance"))
        assert said == {
            "v": 1,
            "worker": "w1",
            "agent": "codex",
            "models": ["sonnet"],
            "capacity": 4,
            "lease_s": 30,
            "account": "a1",
            "holds": [],
        }


async def test_a_worker_that_names_no_agent_serves_all(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(shout)) as engine:
        said = await engine.report("worker.joined")
        assert "agent" not in said
        assert "models" not in said


async def test_the_heartbeat_names_session_and_process_and_stays_for_half_a_lease(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(shout)) as engine:
        value = await wait_until(lambda: client.call("GET", keys.worker("w1")))
        shown = WorkerHeartbeat.read(value)
        said = await engine.report("worker.joined")
        assert (shown.session, shown.instance) == (engine.session, said["instance"])
        assert shown.pid == str(os.getpid())
        assert identity.runs(os.getpid(), shown.started)
        assert 20 < await client.call("TTL", keys.worker("w1")) <= 30


async def test_an_attempt_dispatched_anew_after_the_log_went_back_is_run_anew(
    client: Client, keys: Keys
) -> None:
    """Given an attempt that has ended, when its dispatch is repeated it is known as such; when the
    log lost it and dispatches the attempt anew, it is done anew. One that runs answers both."""
    gate = anyio.Event()

    async def handle(task: Task) -> str:
        if task.id == "slow":
            await gate.wait()
        return "done"

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1", log="5-1")
        await engine.report("task.completed", "t1")
        await engine.dispatch("t1", log="5-1")
        await engine.dispatch("t1", log="4-9")

        async def reports(task: str) -> int:
            return len(await engine.reports("task.completed", task))

        async def two() -> bool:
            return await reports("t1") == 2

        await wait_until(two, what="it is done anew")
        await engine.dispatch("slow", log="5-2")
        await engine.report("task.started", "slow")
        await engine.dispatch("slow", log="4-10")
        await engine.dispatch("t2", log="5-3")
        await engine.report("task.completed", "t2")  # so the entries before it were read
        gate.set()
        await engine.report("task.completed", "slow")
        assert (await reports("t1"), await reports("slow")) == (2, 1)


async def test_a_worker_with_its_own_intake_uses_no_other(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(shout, intake="w1")) as engine:
        await engine.dispatch("t1")
        await engine.report("task.completed", "t1")
        assert await client.call("EXISTS", keys.main_intake) == 0


async def test_options_that_cannot_work_are_refused_by_name(client: Client, keys: Keys) -> None:
    with pytest.raises(ConfigError, match="capacity 0"):
        await serve(options(shout, capacity=0), keys, client)
    with pytest.raises(ConfigError, match="heartbeat_s"):
        await serve(options(shout, heartbeat_s=50), keys, client)


# -- doing -------------------------------------------------------------------------------------


async def test_a_task_is_done_and_its_result_reported(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(shout)) as engine:
        await engine.dispatch("t1", "hello", model="opus")
        said = await engine.report("task.completed", "t1")
        assert said.pop("duration_ms") >= 0
        assert said == {
            "v": 1,
            "task": "t1",
            "attempt": 1,
            "session": engine.session,
            "worker": "w1",
            "result": "HELLO",
            "model": "opus",
        }


async def test_a_task_that_ends_at_once_costs_one_entry(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(shout)) as engine:
        for n in range(50):
            await engine.dispatch(f"t{n}")
        await engine.report("task.completed", "t49")
        assert len(await engine.entries()) == 51


async def test_a_longer_task_reports_its_start_first(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(for_ever)) as engine:
        await engine.dispatch("t1")
        said = await engine.report("task.started", "t1")
        assert said == {
            "v": 1,
            "task": "t1",
            "attempt": 1,
            "session": engine.session,
            "worker": "w1",
        }
        await engine.cancel("t1")
        await engine.report("task.cancelled", "t1")
        assert [kind for _, kind, _ in await engine.entries()][1:] == [
            "task.started",
            "task.cancelled",
        ]


async def test_a_result_tells_usage_model_and_more(client: Client, keys: Keys) -> None:
    async def handle(task: Task) -> Result:
        usage = Usage(input_tokens=10, output_tokens=0)
        return Result("x", usage=usage, model="m", cost_usd=0.5, extra={"note": 1, "task": "no"})

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        said = await engine.report("task.completed", "t1")
        assert said["usage"] == {"input_tokens": 10, "output_tokens": 0}  # unknown is not zero
        assert (said["model"], said["cost_usd"], said["note"]) == ("m", 0.5, 1)
        assert said["task"] == "t1"


async def test_usage_counted_on_the_way_is_reported_however_the_task_ends(
    client: Client, keys: Keys
) -> None:
    async def handle(task: Task) -> None:
        task.usage(input_tokens=5)
        task.usage(input_tokens=7, output_tokens=1)
        if task.id == "fails":
            raise RuntimeError("no")
        if task.id == "hangs":
            await anyio.sleep_forever()

    async with working(client, keys, options(handle)) as engine:
        for task in ("works", "fails", "hangs"):
            await engine.dispatch(task)
        await engine.report("task.started", "hangs")
        await engine.cancel("hangs")
        await engine.report("task.cancelled")
        ends = [r for r in await engine.reports("task.") if "usage" in r]
        assert [end["usage"] for end in ends] == [{"input_tokens": 12, "output_tokens": 1}] * 3


async def test_an_exception_fails_the_attempt_and_another_may_follow(
    client: Client, keys: Keys
) -> None:
    async def handle(task: Task) -> None:
        if task.id == "for-good":
            raise PermanentError("never")
        if task.id == "exit":
            raise SystemExit(3)
        raise KeyError("x")

    async with working(client, keys, options(handle)) as engine:
        for task in ("again", "for-good", "exit"):
            await engine.dispatch(task)
        said = await engine.report("task.failed", "again")
        assert (said["error"], said["retryable"]) == ("KeyError: 'x'", True)
        said = await engine.report("task.failed", "for-good")
        assert (said["error"], said["retryable"]) == ("never", False)
        assert (await engine.report("task.failed", "exit"))["retryable"] is True


async def test_what_is_no_result_fails_for_good(client: Client, keys: Keys) -> None:
    async def handle(task: Task) -> Any:
        return {"not": "a result"}

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        said = await engine.report("task.failed", "t1")
        assert "not a result" in said["error"]
        assert said["retryable"] is False


async def test_a_result_beyond_64_kb_keeps_its_end_and_says_so(client: Client, keys: Keys) -> None:
    async def handle(task: Task) -> str:
        return "ä" * 100_000 + "\ud800 the end"

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        result = (await engine.report("task.completed", "t1"))["result"]
        assert len(result.encode()) <= 64 * 1024
        assert result.startswith("[… the first 13")
        assert result.endswith("? the end")


async def test_no_more_than_capacity_runs_at_once_and_all_is_done(
    client: Client, keys: Keys
) -> None:
    running = most = 0
    go_on = anyio.Event()

    async def handle(task: Task) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        await anyio.lowlevel.checkpoint()
        running -= 1

    async with working(client, keys, options(handle, capacity=3)) as engine:
        for n in range(40):
            await engine.dispatch(f"t{n}")
        await engine.cancel("t39")
        await engine.report("task.cancelled", "t39")  # so the worker has read all of them
        assert most == 3
        go_on.set()

        async def all_done() -> bool:
            return len(await engine.reports("task.completed")) == 39

        await wait_until(all_done)
        assert most == 3


async def test_an_attempt_runs_once_however_often_it_is_dispatched(
    client: Client, keys: Keys
) -> None:
    runs: list[tuple[str, int]] = []

    async def handle(task: Task) -> None:
        runs.append((task.id, task.attempt))

    async with working(client, keys, options(handle)) as engine:
        for attempt in (1, 1, 2, 1):
            await engine.dispatch("t1", attempt=attempt)
        await engine.dispatch("t2")
        await engine.report("task.completed", "t2")
        assert runs == [("t1", 1), ("t1", 2), ("t2", 1)]


async def test_entries_of_other_sessions_and_broken_ones_are_not_run(
    client: Client, keys: Keys
) -> None:
    runs: list[str] = []

    async def handle(task: Task) -> None:
        runs.append(task.id)

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("old", session="1-1")
        await engine.dispatch("", attempt=1)
        await engine.dispatch("t0", attempt="many")
        await engine.dispatch("t0", deadline="soon")
        await engine.tell(type="task.from_the_future", task="t0", session=engine.session)
        await engine.tell(nothing="known")
        await engine.dispatch("t1", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))
        await engine.report("task.completed", "t1")
        assert runs == ["t1"]


async def test_progress_reaches_the_intake(client: Client, keys: Keys) -> None:
    async def handle(task: Task) -> str:
        await task.progress({"percent": 50, "own": ["field"]})
        with pytest.raises(ValueError, match="64 kB"):
            await task.progress("x" * 70_000)
        with pytest.raises(TypeError):
            await task.progress(object())
        return "done"

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.completed", "t1")
        assert await engine.report("progress.updated") == {
            "v": 1,
            "agent": "codex",
            "task": "t1",
            "document": {"percent": 50, "own": ["field"]},
        }


async def test_more_tasks_than_the_worker_may_keep_waiting_are_all_done(
    client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.worker.session.WAITING_MAX", 5)
    monkeypatch.setattr("services.worker.session.READ_COUNT", 10)

    async def handle(task: Task) -> None:
        await anyio.lowlevel.checkpoint()

    async with working(client, keys, options(handle, capacity=1)) as engine:
        for n in range(100):
            await engine.dispatch(f"t{n}")

        async def all_done() -> bool:
            return len(await engine.reports("task.completed")) == 100

        await wait_until(all_done)


async def test_a_handler_that_tells_more_than_redis_takes_waits_for_it(
    client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.worker.outbox.ROOM_BYTES", 10_000)
    most = 0

    class Watching(Client):
        async def pipeline(self, commands: Any) -> list[Any]:
            nonlocal most
            batch = list(commands)
            most = max(most, len(batch))
            return await super().pipeline(batch)

    async def handle(task: Task) -> None:
        for n in range(500):
            await task.progress({"n": n, "filler": "x" * 1000})

    watching = Watching(client.url)
    async with working(watching, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.completed", "t1")
        reported = [r["document"]["n"] for r in await engine.reports("progress.updated")]
        assert reported == list(range(500))
        assert most <= 12
    await watching.close()


async def test_an_intake_that_is_no_stream_is_a_clear_error(client: Client, keys: Keys) -> None:
    await client.call("SET", keys.main_intake, "x", "EX", 60)
    with pytest.raises(AsbError, match="refuses this worker"):
        await serve(options(shout), keys, client)


# -- ending before the time --------------------------------------------------------------------


async def test_a_cancelled_task_is_reported_as_cancelled(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(for_ever)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        await engine.cancel("t1", "not needed")
        said = await engine.report("task.cancelled", "t1")
        assert said["reason"] == "not needed"
        assert "started" not in said


async def test_a_handler_that_swallows_its_cancellation_did_not_complete(
    client: Client, keys: Keys
) -> None:
    async def stubborn(task: Task) -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep_forever()
        assert task.cancelled
        return "as if nothing had been"

    async with working(client, keys, options(stubborn)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        await engine.cancel("t1")
        await engine.report("task.cancelled", "t1")
        assert await engine.reports("task.completed") == []


async def test_a_waiting_task_is_cancelled_without_having_begun(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(for_ever, capacity=1)) as engine:
        await engine.dispatch("t1")
        await engine.dispatch("t2")
        await engine.report("task.started", "t1")
        await engine.cancel("t2")
        assert (await engine.report("task.cancelled", "t2"))["started"] is False
        await engine.cancel("t1")
        await engine.report("task.cancelled", "t1")
        assert await engine.reports("task.started", "t2") == []


async def test_a_task_whose_text_was_forgotten_is_not_run(client: Client, keys: Keys) -> None:
    """Its inbox entry has lost the text before the worker saw it: it ends, and nothing began."""
    ran: list[str] = []

    async def handle(task: Task) -> str:
        ran.append(task.id)
        return "done"

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1", type="task.forgotten", text="")
        await engine.dispatch("t2")
        assert (await engine.report("task.cancelled", "t1"))["started"] is False
        await engine.report("task.completed", "t2")
    assert ran == ["t2"]


async def test_a_cancellation_in_the_same_breath_still_ends_the_task(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(for_ever, capacity=1)) as engine:
        both = "for _, kind in ipairs(ARGV) do if kind ~= ARGV[1] then redis.call('XADD', KEYS[1], "
        both += "'*', 'type', kind, 'task', 't1', 'attempt', 1, 'session', ARGV[1]) end end"
        kinds = ("task.dispatched", "task.cancel_requested")
        await client.call("EVAL", both, 1, keys.inbox("w1"), engine.session, *kinds)
        assert (await engine.report("task.cancelled", "t1"))["started"] is False
        await engine.dispatch("t2")  # and its place is free again
        await engine.report("task.started", "t2")


async def test_a_warned_task_goes_on_and_its_handler_sees_why(client: Client, keys: Keys) -> None:
    seen: list[str] = []

    async def handle(task: Task) -> str:
        await wait_until(lambda: task.over_budget)
        await task.may_go_on()
        seen.append(task.over_budget)
        await wait_until(lambda: not task.over_budget)
        return seen[0]

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        await engine.hold(
            "hold.refused", "t1", action="warn", reason="tokens/day of global is full"
        )
        await wait_until(lambda: seen)
        await engine.hold("hold.extended", "t1")
        said = await engine.report("task.completed", "t1")
    assert said["result"] == "tokens/day of global is full"


async def test_a_paused_handler_waits_at_its_next_step_until_its_hold_is_extended(
    client: Client, keys: Keys
) -> None:
    steps: list[int] = []
    seen: list[Task] = []

    async def handle(task: Task) -> str:
        seen.append(task)
        while len(steps) < 1_000_000:
            await task.may_go_on()
            steps.append(len(steps))
            await anyio.lowlevel.checkpoint()
        return "never"

    async with working(client, keys, options(handle)) as engine:
        await engine.dispatch("t1")
        await wait_until(lambda: seen)
        for _ in range(2):
            await _pause_and_go_on(engine, seen[0], steps)
        await engine.hold("hold.refused", "t1", action="pause")
        await wait_until(lambda: seen[0].paused)
        await engine.cancel("t1")
        assert (await engine.report("task.cancelled", "t1"))["reason"] == "by hand"


async def _pause_and_go_on(engine: Engine, task: Task, steps: list[int]) -> None:
    await engine.hold("hold.refused", "t1", action="pause")
    await wait_until(lambda: task.paused)
    before = len(steps)
    await stays(lambda: len(steps) <= before + 1, during=0.1)
    older = {"log": f"8-{engine.words}", "type": "hold.extended", "attempt": 1}
    await engine.tell(
        **older, task="t1", session=engine.session
    )  # written late, above the newer one
    await stays(lambda: task.paused, during=0.1)
    await engine.hold("hold.extended", "t1")
    await wait_until(lambda: len(steps) > before + 1)


async def test_a_task_past_its_deadline_fails_and_may_be_tried_again(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(for_ever)) as engine:
        await engine.dispatch("t1", deadline=int((time.time() + 0.3) * 1e6))
        said = await engine.report("task.failed", "t1")
        assert said["error"].startswith("timed out after 0.")
        assert said["retryable"] is True
        assert 100 < said["duration_ms"] < 3000


async def test_a_task_whose_deadline_has_passed_does_not_run(client: Client, keys: Keys) -> None:
    async with working(client, keys, options(for_ever)) as engine:
        await engine.dispatch("t1", deadline=1)
        assert (await engine.report("task.failed", "t1"))["error"].startswith("timed out")


async def test_a_task_has_its_whole_time_and_no_more_when_the_server_s_clock_steps_forward(
    client: Client, keys: Keys
) -> None:
    """The deadline was given after a step that this worker does not know of yet."""
    async with working(client, keys, options(for_ever)) as engine:
        await engine.dispatch("t1", deadline=int((time.time() + 93_600) * 1e6), timeout_s=1)
        said = await engine.report("task.failed", "t1")
        assert said["error"].startswith("timed out after 1")


# -- the end of a session ----------------------------------------------------------------------


async def test_a_stopping_worker_gives_back_what_does_not_end_and_says_goodbye_last(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(for_ever, capacity=1)) as engine:
        await engine.dispatch("t1")
        await engine.dispatch("t2")
        await engine.report("task.started", "t1")
    ends = await engine.entries()
    assert [kind for _, kind, _ in ends][-3:] == ["task.failed", "task.failed", "worker.left"]
    for task, started in (("t1", True), ("t2", False)):
        said = await engine.report("task.failed", task)
        assert (said["error"], said["retryable"]) == ("worker stopped", True)
        assert said.get("started", True) is started
    assert ends[-1][2] == {"v": 1, "worker": "w1", "session": engine.session}
    assert await client.call("EXISTS", keys.worker("w1")) == 0


async def test_a_stopping_worker_lets_running_tasks_end_within_the_grace(
    client: Client, keys: Keys
) -> None:
    go_on = anyio.Event()

    async def handle(task: Task) -> str:
        await go_on.wait()
        return "in time"

    stop = anyio.Event()
    engine = Engine(client, keys)
    async with anyio.create_task_group() as group:

        async def work() -> None:
            await serve(options(handle, capacity=1, grace_s=20), keys, client, stop=stop)

        group.start_soon(work)
        await engine.joined()
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        stop.set()
        await engine.dispatch("late")
        go_on.set()
    assert (await engine.report("task.completed", "t1"))["result"] == "in time"
    assert await engine.reports("task.started", "late") == []
    assert [kind for _, kind, _ in await engine.entries()][-1] == "worker.left"


async def test_a_cancelled_worker_ends_everything_and_still_says_goodbye(
    client: Client, keys: Keys
) -> None:
    engine = Engine(client, keys)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, options(for_ever, grace_s=60), keys, client)
        await engine.joined()
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        group.cancel_scope.cancel()
    assert (await engine.reports("task.failed", "t1"))[0]["error"] == "worker stopped"
    assert [kind for _, kind, _ in await engine.entries()][-1] == "worker.left"


async def test_a_worker_declared_lost_ends_its_tasks_and_joins_again(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(for_ever)) as engine:
        first = engine.session
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        await engine.tell(type="worker.lost", session=first)
        assert await engine.joined(2) > first
        said = await engine.report("task.failed", "t1")
        assert (said["session"], said["retryable"]) == (first, True)
        kinds = [kind for _, kind, _ in await engine.entries()]
        assert kinds.index("task.failed") < len(kinds) - 1 - kinds[::-1].index("worker.joined")
        await engine.dispatch("t1", attempt=2)
        assert (await engine.report("task.started"))["attempt"] == 1

        async def second_runs() -> bool:
            return any(r["attempt"] == 2 for r in await engine.reports("task.started"))

        await wait_until(second_runs)


async def test_a_refused_worker_says_whose_the_name_is_and_ends(client: Client, keys: Keys) -> None:
    """It neither touches the holder's heartbeat nor says goodbye in its name."""
    engine = Engine(client, keys)
    holder = WorkerHeartbeat("5-0", "another", "another-place", "1", "1").value
    await client.call("SET", keys.worker("w1"), holder, "EX", 60)

    async def refuse() -> None:
        session = await engine.joined()
        fields = {"holder": "5-0", "since": 1_795_348_800_000_000}
        await engine.tell(type="worker.refused", session="4-0", **fields)  # meant for another
        await engine.tell(type="worker.refused", session=session, **fields)

    async with anyio.create_task_group() as group:
        group.start_soon(refuse)
        said = "w1 is alive: session 5-0, since 2026-11-22 12:00:00 UTC"
        with pytest.raises(AsbError, match=said):
            await serve(options(shout), keys, client)
    assert await client.call("GET", keys.worker("w1")) == holder.encode()
    assert [kind for _, kind, _ in await engine.entries()] == ["worker.joined"]


async def test_a_refused_worker_takes_down_the_heartbeat_it_has_shown(
    client: Client, keys: Keys
) -> None:
    """The holder had just joined too: its own heartbeat finds room again."""
    engine = Engine(client, keys)
    heartbeat = keys.worker("w1")
    holder = WorkerHeartbeat("5-0", "another", "another-place", "1", "1").value.encode()

    async def none_shown() -> bool:
        return not await client.call("EXISTS", heartbeat)

    async def refuse() -> None:
        session = await engine.joined()
        await wait_until(lambda: client.call("GET", heartbeat))
        await engine.tell(type="worker.refused", session=session, holder="5-0", since=1)
        await wait_until(none_shown)
        await client.call("SET", heartbeat, holder, "EX", 60)

    async with anyio.create_task_group() as group:
        group.start_soon(refuse)
        with pytest.raises(AsbError, match="is alive"):
            await serve(options(shout), keys, client)
    assert await client.call("GET", heartbeat) == holder


async def test_a_worker_leaves_another_s_heartbeat_alone_until_it_is_given_work(
    client: Client, keys: Keys
) -> None:
    other = WorkerHeartbeat("5-0", "another", "another-place", "1", "1").value.encode()
    await client.call("SET", keys.worker("w1"), other, "EX", 60)

    async def shown() -> bool:
        return await client.call("GET", keys.worker("w1")) == other

    async def own() -> bool:
        value = await client.call("GET", keys.worker("w1"))
        return WorkerHeartbeat.read(value).session == engine.session

    async with working(client, keys, options(shout, heartbeat_s=0.1)) as engine:
        await stays(shown, during=0.4)
        assert "evidence" not in await engine.report("worker.joined")
        await engine.dispatch("t1")
        await engine.report("task.completed", "t1")
        await wait_until(own)


async def test_the_heartbeat_of_a_dead_process_is_evidence_and_gives_way(
    client: Client, keys: Keys
) -> None:
    gone = await anyio.run_process([sys.executable, "-c", "import os; print(os.getpid())"])
    pid = gone.stdout.decode().strip()
    dead = WorkerHeartbeat("5-0", "another", identity.place(), pid, "1")
    await client.call("SET", keys.worker("w1"), dead.value, "EX", 60)

    async def own() -> bool:
        value = await client.call("GET", keys.worker("w1"))
        return WorkerHeartbeat.read(value).session == engine.session

    async with working(client, keys, options(shout)) as engine:
        said = await engine.report("worker.joined")
        assert said["evidence"] == f"5-0 its process {pid} is gone"
        await wait_until(own)


async def test_a_take_over_is_asked_for_once_and_the_same_instance_joins_again(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(shout, take_over=True)) as engine:
        await engine.tell(type="worker.lost", session=engine.session)
        await engine.joined(2)
        first, second = await engine.reports("worker.joined")
        assert first["take_over"] is True
        assert "take_over" not in second
        assert first["instance"] == second["instance"]


async def test_a_worker_whose_name_was_taken_over_ends_its_tasks_and_does_not_join_again(
    client: Client, keys: Keys
) -> None:
    engine = Engine(client, keys)

    async def replaced() -> None:
        session = await engine.joined()
        await engine.dispatch("t1")
        await engine.report("task.started", "t1")
        await engine.tell(type="worker.lost", session=session, taken_by="9-0")

    async with anyio.create_task_group() as group:
        group.start_soon(replaced)
        with pytest.raises(AsbError, match="has taken over"):
            await serve(options(for_ever), keys, client)
    assert len(await engine.reports("worker.joined")) == 1
    assert (await engine.report("task.failed", "t1"))["retryable"] is True


async def test_an_intake_that_refuses_everything_is_a_clear_error(
    client: Client, keys: Keys
) -> None:
    engine = Engine(client, keys)

    async def spoil() -> None:
        await engine.joined()
        await client.call("DEL", keys.main_intake)
        await client.call("SET", keys.main_intake, "not a stream", "EX", 60)
        await engine.dispatch("t1")

    async with anyio.create_task_group() as group:
        group.start_soon(spoil)
        with pytest.raises(RedisUnsuitable, match="refuses this worker's reports"):
            await serve(options(shout), keys, client)
        await client.call("DEL", keys.main_intake)


async def test_an_inbox_that_went_back_is_read_from_its_beginning(
    client: Client, keys: Keys
) -> None:
    runs: list[str] = []

    async def handle(task: Task) -> None:
        runs.append(task.id)

    async with working(client, keys, options(handle, lease_s=2, heartbeat_s=0.5)) as engine:
        await engine.dispatch("t1")
        await engine.report("task.completed", "t1")
        await client.call("DEL", keys.inbox("w1"))
        for n, task in enumerate(("t1", "t2")):
            fields = ["log", "1-1", "type", "task.dispatched", "task", task, "attempt", 1]
            await client.call(
                "XADD", keys.inbox("w1"), f"5-{n}", *fields, "session", engine.session
            )
        await engine.report("task.completed", "t2")
        assert runs == ["t1", "t2"]
