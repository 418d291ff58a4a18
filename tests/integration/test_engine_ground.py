"""Ground of the engine's tests: a bus on a namespace of its own, a scripted worker, and an
audit."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import pytest

from events.envelope import Event
from events.keys import Keys
from events.task import PRIORITIES
from projections import budgets, fold, scopes
from projections.state import State
from services import assembly, hosting
from services.cli import main
from services.engine.host import Host
from services.runtime.settings import Settings
from services.runtime.settings_types import LimitSetting, PolicySettings, TaskSettings, Unit
from services.store import rebuild
from services.store.client import Client, SyncClient
from services.worker import Result, Task, Usage, WorkerOptions, serve
from services.worker.python import FunctionDriver
from tests.wait import wait_until

Entry = dict[str, str]
Handler = Callable[[Task], Awaitable[Result | str | None]]


def limit(scope: str, unit: Unit, window: str, amount: int) -> LimitSetting:
    return LimitSetting(scope=scope, unit=unit, window=window, amount=Decimal(amount))


def settings_for(namespace: str, limits: tuple[LimitSetting, ...] = (), **tasks: Any) -> Settings:
    """Settings of a test: no limits unless given, a short backoff."""
    chosen: dict[str, Any] = {"backoff_s": 0, **tasks}
    return Settings(
        namespace=namespace,
        data_dir=Path("/nowhere"),
        policy=PolicySettings(limits=limits, alert_budgets=()),
        tasks=TaskSettings(**chosen),
    )


class Bus:
    """The intakes, the log and the hosts of one namespace."""

    def __init__(self, url: str, namespace: str, **settings: Any) -> None:
        self.url, self.keys = url, Keys(namespace)
        self.settings = settings_for(namespace, **settings)
        self.client = Client(url)
        self._clients = [self.client]

    def host(self, *services: str) -> Host:
        """A host with a client of its own; the whole engine unless told otherwise."""
        client = Client(self.url)
        self._clients.append(client)
        return hosting.host(client, self.settings, services or assembly.SERVICES)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    # -- at the intakes --------------------------------------------------------------------------

    async def put(self, *fields: str | bytes, intake: str | None = None) -> str:
        """A raw entry; its id."""
        found = await self.client.call("XADD", self.keys.intake(intake), "*", *fields)
        return found.decode()

    async def tell(self, kind: str, intake: str | None = None, **data: Any) -> str:
        return await self.put("type", kind, "data", msgspec.json.encode(data), intake=intake)

    async def submit(self, text: str = "write a test", **fields: Any) -> str:
        """The task's id, given or made from the entry."""
        entry = await self.tell("task.submitted", text=text, **fields)
        return fields.get("task", entry)

    async def submit_many(self, count: int, **fields: Any) -> list[str]:
        data = [
            msgspec.json.encode({"text": f"fix bug number {n} in the parser", **fields})
            for n in range(count)
        ]
        replies = await self.client.pipeline(
            ("XADD", self.keys.main_intake, "*", "type", "task.submitted", "data", d) for d in data
        )
        return [reply.decode() for reply in replies]

    async def dead(self) -> list[tuple[str, str]]:
        """Dead letters: entry id and error."""
        found = await self.client.call("XRANGE", self.keys.deadletter, "-", "+")
        return [(fields[3].decode(), fields[5].decode()) for _, fields in found]

    # -- on the log ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _sync(self) -> Generator[SyncClient]:
        with contextlib.closing(SyncClient(self.url)) as client:
            yield client

    def events(self, *kinds: str) -> list[Event]:
        """All that stands on the log, or only some types."""
        with self._sync() as client:
            batches = list(rebuild.read_log(client, self.keys))
        found = [event for batch in batches for event in batch]
        return [e for e in found if e.type in kinds] if kinds else found

    def folded(self, *, snapshot: bool = False) -> State:
        """The state as the log alone says."""
        with self._sync() as client:
            return rebuild.rebuild(client, self.keys, snapshot=snapshot)

    async def ended(self, *tasks: str, within: float = 10) -> State:
        """Wait until all these tasks are over; the state then."""

        def look() -> list[State]:
            state = self.folded()
            return [state] if all(t in state.outcomes for t in tasks) else []

        return (await wait_until(look, within, f"the end of {len(tasks)} tasks"))[0]


@contextlib.asynccontextmanager
async def running(*hosts: Host) -> AsyncGenerator[anyio.abc.TaskGroup]:
    """Hosts at work beside the test."""
    async with anyio.create_task_group() as group:
        for host in hosts:
            group.start_soon(host.run)
        for host in hosts:
            await host.ready.wait()
        yield group
        group.cancel_scope.cancel()


class Hands:
    """A worker played by the test: it reads its inbox and says what it is told to say."""

    def __init__(self, bus: Bus, name: str = "w1") -> None:
        self.bus, self.name = bus, name
        self.session = ""
        self._cursor = "0-0"
        self._unread: list[Entry] = []

    async def join(self, **fields: Any) -> Hands:
        """Open a session; without a heartbeat unless a lease is given."""
        if "lease_s" not in fields:
            fields["heartbeat"] = False
        self.session = await self.bus.tell("worker.joined", worker=self.name, **fields)
        if "lease_s" in fields:
            await self.show(fields["lease_s"])
        return self

    async def show(self, seconds: int) -> None:
        """Show the heartbeat for so long."""
        await self.bus.client.call(
            "SET", self.bus.keys.worker(self.name), self.session, "EX", seconds
        )

    async def inbox(self) -> list[Entry]:
        """What stands in the inbox for this session and was not taken yet."""
        found = await self.bus.client.call(
            "XRANGE", self.bus.keys.inbox(self.name), f"({self._cursor}", "+"
        )
        for entry_id, flat in found:
            self._cursor = entry_id.decode()
            texts = [part.decode() for part in flat]
            entry = dict(zip(texts[::2], texts[1::2], strict=True))
            if entry["session"] == self.session:
                self._unread.append(entry)
        return self._unread

    async def takes(self, kind: str = "task.dispatched", within: float = 5) -> Entry:
        """The next entry of this type."""

        async def look() -> list[Entry]:
            return [entry for entry in await self.inbox() if entry["type"] == kind]

        found: list[Entry] = await wait_until(look, within, f"{kind} for {self.name}")
        self._unread.remove(found[0])
        return found[0]

    async def says(self, kind: str, entry: Entry, **data: Any) -> str:
        return await self.bus.tell(
            f"task.{kind}",
            intake=None,
            task=entry["task"],
            attempt=int(entry["attempt"]),
            session=entry["session"],
            **data,
        )

    async def does(self, entry: Entry, tokens: int = 100) -> None:
        """Start it and complete it."""
        await self.says("started", entry)
        usage = {"input_tokens": tokens // 2, "output_tokens": tokens - tokens // 2}
        await self.says("completed", entry, result="done", usage=usage)


async def at_once(task: Task) -> Result:
    """The handler of a busy test: no work, a little usage."""
    return Result("ok", Usage(input_tokens=6, output_tokens=4))


@contextlib.asynccontextmanager
async def working(
    bus: Bus, *names: str, capacity: int = 20, handler: Handler = at_once, lease_s: int = 60
) -> AsyncGenerator[None]:
    """Real workers beside the test."""
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        for name in names:
            options = WorkerOptions(
                name=name,
                driver=FunctionDriver(handler),
                capacity=capacity,
                lease_s=lease_s,
                heartbeat_s=lease_s / 4,
                grace_s=0.1,
            )

            async def work(options: WorkerOptions = options) -> None:
                await serve(options, bus.keys, bus.client, stop=stop)

            group.start_soon(work)
        yield
        stop.set()


# -- what must hold of every log -----------------------------------------------------------------


class Audit(msgspec.Struct):
    """A log, told in figures; ``wrong`` lists what must never be."""

    state: State
    submitted: Counter[str]
    dispatched: Counter[tuple[str, int]]
    completed: Counter[str]
    ended: Counter[str]
    wrong: list[str]
    types: Counter[str]


def audit(events: list[Event]) -> Audit:
    """Fold a log again, with every promise checked on the way."""
    a = Audit(State(), Counter(), Counter(), Counter(), Counter(), [], Counter())
    origins: Counter[str] = Counter()
    for event in events:
        d = event.data
        a.types[event.type] += 1
        if event.type == "task.submitted":
            a.submitted[d.task] += 1
            origins[event.origin] += 1
        elif event.type == "task.dispatched":
            a.dispatched[d.task, d.attempt] += 1
            a.wrong += _broken_limit(a.state, event)
        elif event.type in _ENDS and not d.stale and not getattr(d, "retry_at", 0):
            a.ended[d.task] += 1
            a.completed[d.task] += event.type == "task.completed"
        fold.apply(a.state, event)
    for what, counter in (
        ("submitted", a.submitted),
        ("taken in", origins),
        ("dispatched", a.dispatched),
        ("ended", a.ended),
    ):
        a.wrong += [f"{key} {what} {n} times" for key, n in counter.items() if n > 1]
    return a


_ENDS = frozenset(("task.completed", "task.failed", "task.cancelled"))


def _broken_limit(state: State, event: Event) -> list[str]:
    d = event.data
    task = state.tasks.get(d.task)
    if task is None:
        return [f"{d.task} dispatched, but not open"]
    keys = scopes.scope_keys(d.worker, d.agent, d.model, task.project)
    ask = (d.hold_tokens, d.hold_nanos, 1)
    found = budgets.refusal(state, keys, task.priority, ask, event.at)
    priority = PRIORITIES[task.priority]
    return [f"{d.task} ({priority}) dispatched against {found}"] if found else []


def held(state: State) -> dict[str, tuple[int, int, int]]:
    """Scopes that hold something."""
    return {
        key: (s.held_tokens, s.held_nanos, s.held_tasks)
        for key, s in state.scopes.items()
        if s.held_tokens or s.held_nanos or s.held_tasks
    }


def proven(bus: Bus, *hosts: Host, tasks: list[str] | None = None) -> Audit:
    """Audit the log: nothing wrong, all ``tasks`` ended once, nothing held, hosts at the same."""
    a = audit(bus.events())
    assert a.wrong == []
    for task in tasks or []:
        assert (a.submitted[task], a.ended[task]) == (1, 1), task
    if not a.state.tasks:
        assert held(a.state) == {}
    for host in hosts:
        assert host.state.meta.log_id == a.state.meta.log_id
        assert host.state.digest() == a.state.digest()
    return a


async def blocked(client: Client) -> bool:
    """Whether somebody waits at one of its servers."""
    said = await client.everywhere("INFO", "clients")
    return any(b"blocked_clients:0" not in info for info in said)


async def caught_up(bus: Bus, *hosts: Host) -> None:
    """Wait until every host has folded the whole log and has nothing under way."""

    async def same() -> bool:
        last = await hosts[0].log.last_id()
        return all(h.state.meta.log_id == last and not h.state.ahead for h in hosts)

    await wait_until(same, within=10, what="hosts at the end of the log")


Asb = Callable[..., Awaitable[str]]


def asb_on(bus: Bus, capsys: pytest.CaptureFixture[str]) -> Asb:
    """Runs a command on ``bus``; its stdout, or where it ends with ``code`` its stderr."""

    async def run(*words: str, code: int = 0) -> str:
        given = [*words, f"--redis={bus.url}", f"--namespace={bus.keys.namespace}"]
        found = await anyio.to_thread.run_sync(_exit_code, given)
        captured = capsys.readouterr()
        assert found == code, captured.err
        return captured.out if code == 0 else captured.err

    return run


def _exit_code(words: list[str]) -> int:
    try:
        main.main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
