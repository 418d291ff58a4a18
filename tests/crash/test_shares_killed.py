"""One budget over three buses on two servers, of which everything is killed: over all logs folded
together it is never overshot, and a bus that needs more gets it.

Engines and the service that moves shares are processes as users start them. Agents are this test's:
they write to the intake what redis-cli would.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.keys import Keys
from services.runtime.errors import RedisUnavailable
from services.store.client import SyncClient
from tests.budget.ground import say
from tests.clusters import Cluster
from tests.e2e.cli import Process, environment
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from tests.wait import wait_blocking
from tests.whole import largest_sum, overshot

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

WHOLE, TASK = 5_000, 1_000
WITHIN_S = 90
POINTS = ("shares.before", "shares.after")


class DividedBus:
    """A bus with an engine, and an agent that takes what it is given."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.name, self.url, self._folder = name, url, folder
        self._keys, self.submitted = Keys(name), 0
        self._reported: set[tuple[str, int]] = set()
        self.engine = self.start()

    def start(self) -> Process:
        return Process(
            self._folder,
            *("service", "engine", "inbox", f"--redis={self.url}"),
            environ={**environment(), "ASB_NAMESPACE": self.name},
        )

    def call(self, *command: str | int) -> Any:
        """One command, however long a server is away."""

        def answer() -> list[Any]:
            try:
                with contextlib.closing(SyncClient(self.url)) as client:
                    return [client.call(*command)]
            except RedisUnavailable:
                return []

        return wait_blocking(answer, within=60, what="Redis answers")[0]

    def send(self, kind: str, **data: object) -> None:
        text = msgspec.json.encode(data).decode()
        self.call("XADD", self._keys.main_intake, "*", "type", kind, "data", text)

    def submit(self, number: int) -> None:
        self.submitted += number
        for _ in range(number):
            self.send("task.submitted", text="Do it", estimate_tokens=TASK, priority="critical")

    def log(self) -> list[Any]:
        return self.call("XRANGE", self._keys.log, "-", "+")

    def dispatched(self) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(fields[11])
            for _, fields in self.log()
            if fields[1] == b"task.dispatched"
        ]

    def work(self, tokens: int) -> None:
        """What was given to the agent is done, each time with so many tokens."""
        for task in self.dispatched():
            if (task["task"], task["attempt"]) not in self._reported:
                self._reported.add((task["task"], task["attempt"]))
                known = {name: task[name] for name in ("task", "attempt", "session")}
                self.send("task.completed", **known, usage={"input_tokens": tokens})

    def kill(self) -> None:
        """Kill -9 the engine; another goes on."""
        self.engine.stop(signal.SIGKILL)
        self.engine = self.start()


class Divided:
    """Three buses, and the service between them."""

    def __init__(self, folder: Path, places: Mapping[str, str]) -> None:
        self.folder = folder
        buses = ", ".join(
            f'{{ name = "{name}", redis_url = "{url}", namespace = "{name}" }}'
            for name, url in places.items()
        )
        (folder / "asb.toml").write_text(
            f'[[shares]]\nunit = "tokens"\nwindow = "day"\namount = {WHOLE}\nbuses = [{buses}]\n'
        )
        self.buses = {name: DividedBus(folder, name, url) for name, url in places.items()}
        for bus in self.buses.values():
            bus.engine.says("Ctrl-C stops")
            bus.send("worker.joined", worker="w1", heartbeat=False, capacity=50)
        self.home = self.buses["north"]
        self._services: list[Process] = []

    def serve(self, dies_at: str = "") -> Process:
        """Start the service; it ends at a point, if one is named."""
        service = Process(
            self.folder,
            *("service", "shares", f"--redis={self.home.url}"),
            environ={**environment(), "ASB_NAMESPACE": "north", "ASB_TEST_DIE_AT": dies_at},
        )
        self._services.append(service)
        return service

    def gets(self, name: str, number: int) -> float:
        """Wait until a bus has dispatched so many tasks in all; seconds."""
        since = time.monotonic()
        bus = self.buses[name]
        wait_blocking(
            lambda: len(bus.dispatched()) >= number, within=WITHIN_S, what=f"{name} has {number}"
        )
        return time.monotonic() - since

    @property
    def is_divided(self) -> bool:
        """Whether the whole was opened: then all others have joined."""
        return largest_sum({"north": self.home.log()}, "day") > 0

    def logs(self) -> dict[str, list[Any]]:
        return {name: bus.log() for name, bus in self.buses.items()}

    def check(self) -> None:
        """What holds at any moment."""
        logs = self.logs()
        assert overshot(logs, WHOLE, "day") == []
        assert largest_sum(logs, "day") <= WHOLE

    def end(self) -> None:
        for process in (*self._services, *(bus.engine for bus in self.buses.values())):
            process.end()


@pytest.fixture
def divided(tmp_path: Path, sentinels: Sentinels) -> Generator[Divided]:
    server = RedisServer(tmp_path / "redis").start()
    made = Divided(tmp_path, {"north": server.url, "south": server.url, "west": sentinels.url})
    yield made
    made.end()
    server.stop()


@pytest.fixture
def spread(tmp_path: Path, cluster: Cluster) -> Generator[Divided]:
    """The buses are namespaces on one Cluster; a plain URL of a node leads there, too."""
    places = {"north": cluster.url, "south": cluster.nodes[0].url, "west": cluster.url}
    made = Divided(tmp_path, places)
    yield made
    made.end()


def test_the_service_is_killed_between_any_two_steps(divided: Divided) -> None:
    """Each of them makes one step, or none, and ends; the last bus gets nearly all there is."""
    south = divided.buses["south"]
    started = 0
    for point in itertools.cycle(POINTS):
        service = divided.serve(dies_at=point)
        started += 1

        def is_over(service: Process = service) -> bool:
            return service.process.poll() is not None or len(south.dispatched()) == 5

        wait_blocking(is_over, within=WITHIN_S, what="it made a step, or all was done")
        divided.check()
        if len(south.dispatched()) == 5:
            break
        if divided.is_divided and not south.submitted:
            south.submit(5)
    say(f"steps of shares: {started} services, each killed at its first step")
    assert largest_sum(divided.logs(), "day") == WHOLE
    assert started > 2 * len(divided.buses)  # each joins, gives or takes


def test_a_bus_that_needs_more_gets_it_whatever_is_killed(
    divided: Divided, sentinels: Sentinels
) -> None:
    first = divided.serve()
    wait_blocking(lambda: divided.is_divided, within=WITHIN_S, what="all have joined")
    north, south, west = divided.buses.values()
    took: dict[str, float] = {}
    south.submit(4)
    took["all that there is"] = divided.gets("south", 4)
    south.work(100)  # most of it is free again
    west.submit(4)
    divided.serve().says("Ctrl-C stops")  # two of them do no harm
    first.stop(signal.SIGKILL)
    south.kill()
    took["with an engine killed"] = divided.gets("west", 4)
    divided.check()
    west.work(100)
    north.submit(3)
    sentinels.restart()
    west.kill()
    took["with a failover"] = divided.gets("north", 3)
    divided.check()
    north.work(TASK)  # three of five thousand are used up
    west.submit(9)
    divided.gets("west", 5)
    divided.check()
    say(f"shares moved, seconds: { {what: round(s, 1) for what, s in took.items()} }")


def test_on_a_cluster_shares_move_through_the_loss_of_primaries(
    spread: Divided, cluster: Cluster
) -> None:
    logs = {name: Keys(name).log for name in spread.buses}
    assert len({cluster.primary_of(log).port for log in logs.values()}) > 1
    spread.serve()
    wait_blocking(lambda: spread.is_divided, within=WITHIN_S, what="all have joined")
    north, south, west = spread.buses.values()
    took: dict[str, float] = {}
    south.submit(4)
    took["all that there is"] = spread.gets("south", 4)
    south.work(100)
    west.submit(4)
    took["to another node"] = spread.gets("west", 4)
    spread.check()
    west.work(100)
    north.submit(3)
    cluster.restart(logs["west"])
    took["with the giver's primary lost"] = spread.gets("north", 3)
    spread.check()
    north.work(TASK)  # three of five thousand are used up
    west.submit(9)
    cluster.restart(logs["west"])
    took["with the taker's primary lost"] = spread.gets("west", 5)
    spread.check()
    say(f"shares moved on a Cluster, seconds: { {what: round(s, 1) for what, s in took.items()} }")
