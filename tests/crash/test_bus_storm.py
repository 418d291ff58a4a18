"""kill -9 of hosts, workers and Redis under load, at random and at named points.

Afterwards the log is folded again and every promise of a bus is looked for in it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from projections.records import RUNNING
from services.runtime.errors import RedisUnavailable
from services.store import rebuild
from services.store.client import SyncClient
from tests.conservation import conserved_over_http
from tests.crash.processes import Fleet, Process
from tests.integration.test_engine_ground import Audit, audit, held, settings_for
from tests.servers import RedisServer, Served
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

PROVE = os.environ.get("ASB_TEST_PROVE") == "1"
TASKS = 150  # by each of two submitters, for each step
ROUNDS = 12 if PROVE else 1  # of the named points
HOST_POINTS = ("append.before", "append.after", "inbox.before", "inbox.after", "deadletter.after")
WORKER_POINTS = ("worker.received", "worker.done_before_report")
NAMESPACE = "storm"
KEYS = Keys(NAMESPACE)


class Storm:
    """A Redis, a fleet on it, and the count of what was killed."""

    def __init__(self, folder: Path, server: Served | None = None) -> None:
        self.server: Served = server or RedisServer(folder / "redis").start()
        self.fleet = Fleet(self.server.url, NAMESPACE, folder)
        self.kills: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()  # open tasks at the kills, summed
        self.hosts: list[Process] = []
        self.workers: dict[str, Process] = {}
        self.submitters: list[Process] = []

    def start(self, services: tuple[str, ...] = ("", "")) -> None:
        self.hosts = [self.fleet.host(chosen) for chosen in services]
        for n in range(len(self.hosts)):
            self.stands(n)
        self.workers = {name: self.fleet.worker(name) for name in ("w1", "w2")}
        self.submitters = [self.fleet.submitter(f"s{n}") for n in range(2)]

    def stands(self, n: int) -> None:
        """The n-th host is ready. A service that finds no Redis at its start says so and ends: it
        is started again, as whoever supervises services does."""
        while wait_blocking(lambda: self._ready(n), 30, self.hosts[n].said()) != "ready":
            self.hosts[n] = self.fleet.again(self.hosts[n])

    def _ready(self, n: int) -> str:
        host = self.hosts[n]
        if Path(host.arguments[1]).exists():
            return "ready"
        return "ended" if host.code is not None and "no Redis answers" in host.said() else ""

    def end(self) -> None:
        self.fleet.end()
        self.server.stop()

    # -- looking -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def client(self) -> Generator[SyncClient]:
        with contextlib.closing(SyncClient(self.server.url)) as client:
            yield client

    def audit(self) -> Audit:
        with self.client() as client:
            return audit([e for batch in rebuild.read_log(client, KEYS) for e in batch])

    def open_tasks(self) -> int:
        """Tasks at the intake or with a worker, at this moment."""
        with self.client() as client:
            state = rebuild.rebuild(client, KEYS)
            intake = KEYS.main_intake
            waiting = client.call("XRANGE", intake, f"({state.intakes.get(intake, '0-0')}", "+")
        return len(waiting) + sum(task.status in RUNNING for task in state.tasks.values())

    def grown(self, by: int, since: int | None = None) -> None:
        """Wait until the log has grown, ``since`` it had that length."""
        before = self.log_length() if since is None else since
        wait_blocking(
            lambda: self.log_length() >= before + by,
            within=60,
            what=f"{by} more events on the log after {before}; {self.troubles()}",
        )

    def log_length(self) -> int:
        try:
            return int(self.server.call("XLEN", KEYS.log))
        except RedisUnavailable:
            return 0

    def troubles(self) -> str:
        return "\n".join(f"{p.kind} {p.code}: {p.said()}" for p in self.fleet.all if p.code)

    # -- killing -------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        self.kills[what] += 1
        self.in_flight[what] += self.open_tasks()

    def kill_host(self, n: int) -> None:
        self.count("host at random")
        self.hosts[n].kill9()

    def kill_worker(self, name: str, die_at: str = "") -> None:
        self.count("worker at random")
        self.workers[name].kill9()
        self.workers[name] = self.fleet.again(self.workers[name], die_at)

    def kill_redis(self) -> None:
        self.count("redis at random")
        self.server.restart()

    def host_dies_at(self, point: str, chance: random.Random) -> None:
        """An armed host stands by, the active one is killed, the armed one takes over and dies."""
        self.kill_host(0)
        armed = self.fleet.again(self.hosts[0], f"{point}:{chance.randint(1, 6)}")
        self.kill_host(1)
        self.fleet.allow(TASKS)
        self._wait_for_death(armed, point)
        self.hosts = [self.fleet.again(armed), self.fleet.again(armed)]

    def worker_dies_at(self, name: str, point: str, chance: random.Random) -> None:
        self.kill_worker(name, f"{point}:{chance.randint(1, 30)}")
        self._wait_for_death(self.workers[name], point)
        self.workers[name] = self.fleet.again(self.workers[name])

    def _wait_for_death(self, process: Process, point: str) -> None:
        wait_blocking(
            lambda: process.code is not None, 60, f"{point} is reached; {self.troubles()}"
        )
        assert process.died_at_its_point, f"{point}: {process.code} {process.said()}"
        self.count(point)

    def snapshot(self, *, dies: bool) -> None:
        """Write a snapshot in a process of its own."""
        process = self.fleet.snapshot("snapshot.before_set" if dies else "")
        wait_blocking(lambda: process.code is not None, 30, "the snapshot's process ends")
        assert process.code == (-signal.SIGKILL if dies else 0), process.said()

    def report(self, title: str, *more: str) -> None:
        print(f"\n{title}:")  # noqa: T201
        for what in sorted(self.kills):
            print(f"  {what:28} {self.kills[what]:4} kills, {self.in_flight[what]:6} in flight")  # noqa: T201
        for line in more:
            print(f"  {line}")  # noqa: T201

    # -- afterwards ----------------------------------------------------------------------------

    def finish(self, within: float = 60) -> Audit:
        """Wait until all that was submitted is over, and every sum is conserved; the log,
        audited."""
        want = self.fleet.allowed * len(self.submitters)
        wait_blocking(lambda: self._submitted() == want, within, f"all {want} acknowledged")
        try:
            wait_blocking(self._all_over, within, "all over")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.left_over()}\n{self.troubles()}") from None
        conserved_over_http(self.server.url, settings_for(NAMESPACE))
        return self.audit()

    def left_over(self) -> str:
        """What is not over, and what everybody said: for failures."""
        with self.client() as client:
            state = rebuild.rebuild(client, KEYS)
        tasks = [
            (t.id, t.status, t.attempt, t.worker, t.session, t.dispatch_id)
            for t in list(state.tasks.values())[:10]
        ]
        workers = [(w.name, w.status, w.session, len(w.running)) for w in state.workers.values()]
        said = [f"{p.kind} {p.arguments}: {p.said()}" for p in self.fleet.all if p.code is None]
        return "\n".join(map(str, [len(state.tasks), *tasks, *workers, *said]))

    def _submitted(self) -> int:
        assert all(x.code is None for x in self.submitters), f"one has ended: {self.troubles()}"
        return sum(len(keys) for keys in self.fleet.acknowledged().values())

    def _all_over(self) -> bool:
        with self.client() as client:
            state = rebuild.rebuild(client, KEYS)
            intake = KEYS.main_intake
            left = client.call("XRANGE", intake, f"({state.intakes.get(intake, '0-0')}", "+")
        return not state.tasks and not [f for _, f in left if b'"text":""' not in f[-1]]

    def hosts_agree(self, a: Audit) -> list[dict[str, Any]]:
        """Every live host stands at the end of the log with the digest of its fold. ``a`` is of the
        end of the load: a worker that was cut off may have come back since, which is an event."""
        found: list[dict[str, Any]] = []
        for host in self.hosts:

            def reported(host: Process = host) -> dict[str, Any]:
                nonlocal a
                word = self.fleet.told_by(host)
                if word["log_id"] != a.state.meta.log_id:
                    a = self.audit()
                return word if word["log_id"] == a.state.meta.log_id else {}

            word = wait_blocking(reported, 20, f"a host at the end of the log: {host.said()}")
            assert word["digest"] == a.state.digest()
            found.append(word)
        assert a.wrong == []
        return found


@pytest.fixture
def storm(tmp_path: Path) -> Generator[Storm]:
    made = Storm(tmp_path)
    yield made
    made.end()


def nothing_lost_nothing_twice(storm: Storm, a: Audit) -> None:
    acknowledged = storm.fleet.acknowledged()
    with storm.client() as client:
        events = [e for batch in rebuild.read_log(client, KEYS) for e in batch]
        letters = client.call("XRANGE", KEYS.deadletter, "-", "+")
    ids = Counter(e.id for e in events if e.type == "task.submitted")
    assert [key for key in acknowledged["task"] if ids[key] != 1] == []
    foreign = [f for _, f in letters if b"id" not in f]
    assert foreign == []  # whatever else was refused would be somebody's report
    buried = {f[f.index(b"id") + 1].decode() for _, f in letters}
    assert [key for key in acknowledged["poison"] if key not in buried] == []
    entries = Counter(fields[3] for _, fields in letters)
    assert [entry for entry, n in entries.items() if n > 1] == []
    assert a.wrong == []
    assert a.state.tasks == {}
    assert a.state.meta.submitted == a.state.meta.ended
    assert all(a.ended[task] == 1 for task in a.submitted)
    assert held(a.state) == {}


def test_a_storm_of_kills_loses_nothing_and_does_nothing_twice(storm: Storm) -> None:
    chance = random.Random(7)
    storm.start()
    steps: list[Callable[[], None]] = []
    for _ in range(ROUNDS):
        steps += [lambda p=p: storm.host_dies_at(p, chance) for p in HOST_POINTS]
        steps += [lambda p=p: storm.worker_dies_at("w1", p, chance) for p in WORKER_POINTS]
        steps += [lambda: storm.kill_worker("w2"), storm.kill_redis, storm.kill_redis]
    chance.shuffle(steps)
    for step in steps:
        storm.fleet.allow(TASKS)
        storm.grown(60)
        step()
    a = storm.finish(within=120 * ROUNDS)
    nothing_lost_nothing_twice(storm, a)
    words = storm.hosts_agree(a)
    storm.report(
        "storm",
        f"{len(a.submitted)} tasks, {a.state.meta.events} events, {len(a.dispatched)} attempts",
        f"conflicts of the last hosts: {[w['stats']['conflicts'] for w in words]}",
    )
    assert {p for p in (*HOST_POINTS, *WORKER_POINTS) if not storm.kills[p]} == set()
    assert {what for what, n in storm.in_flight.items() if not n} == set()
    assert len(a.dispatched) > len(a.submitted)  # some attempts were really lost
