"""Two peers beside us, where they are installed (``pip install huey taskiq taskiq-redis``).

Each has one worker process on the same server, on the loop or thread that it has by itself, and
keeps nothing: no results, no state of a task. The task notes when it began, and does nothing else.

``python -m tests.bench.peers NAME URL`` is such a worker: it says ``ready`` and ends with stdin.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import uvloop

from tests.bench import reference
from tests.bench.ground import Child, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread, beside

TASKS = 3_000
WITHIN_S = 300.0
CALLERS = 50  # that send at once, where the peer's client is asynchronous
_begun: list[tuple[int, int]] = []


def note(number: int) -> None:
    """The task."""
    _begun.append((number, time.monotonic_ns()))


async def note_soon(number: int) -> None:
    """The task of a worker on a loop."""
    note(number)


def _huey(url: str) -> tuple[Any, Any]:
    peer: Any = importlib.import_module("huey").RedisHuey("bench", results=False, url=url)
    return peer, peer.task()(note)


def _taskiq(url: str) -> tuple[Any, Any]:
    peer: Any = importlib.import_module("taskiq_redis").RedisStreamBroker(url)
    return peer, peer.register_task(note_soon, "note")


def _answer() -> None:
    """Say how many tasks have begun, to each line on stdin, until that ends."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(len(_begun), flush=True)


# -- the worker's process --------------------------------------------------------------------------


def _serve_huey(url: str) -> None:
    consumer = _huey(url)[0].create_consumer(workers=1, periodic=False)
    consumer.start()
    _answer()
    consumer.stop(graceful=True)


def _serve_taskiq(url: str) -> None:
    async def serve() -> None:
        broker, _ = _taskiq(url)
        broker.is_worker_process = True
        await broker.startup()
        receiver = asyncio.ensure_future(
            importlib.import_module("taskiq.api").run_receiver_task(broker)
        )
        await asyncio.get_running_loop().run_in_executor(None, _answer)
        receiver.cancel()

    uvloop.run(serve())


# -- the client ------------------------------------------------------------------------------------


class Peer:
    """Sends tasks to a peer and waits until its worker has begun the last."""

    def __init__(self, name: str, ground: Ground) -> None:
        ground.keys()
        MAKE[name](ground.url)  # imports take longer than a task
        self._name, self._url = name, ground.url
        self._worker = Child(name, ground.url, module="tests.bench.peers")

    def rate(self, count: int) -> float:
        """Tasks a second, from the first call to the last task's beginning."""
        began = time.monotonic_ns()
        self._each(range(count), 0.0)
        begun = self._ended(count)
        return count / ((max(begun.values()) - began) / 1e9)

    def latency(self) -> tuple[float, float]:
        """p50 and p99 in µs of tasks sent one at a time."""
        count = reference.WARM_UP + reference.ENTRIES
        sent = self._each(range(count), reference.SPACING_S)
        begun = self._ended(count)
        taken = [(begun[n] - at) / 1000 for n, at in enumerate(sent)][reference.WARM_UP :]
        return reference.percentile(taken, 50), reference.percentile(taken, 99)

    def _each(self, numbers: range, pause: float) -> list[int]:
        if self._name == "huey":
            task, sent = _huey(self._url)[1], list[int]()
            for number in numbers:
                sent.append(time.monotonic_ns())
                task(number)
                time.sleep(pause)
            return sent
        return uvloop.run(self._each_soon(numbers, pause))

    async def _each_soon(self, numbers: range, pause: float) -> list[int]:
        broker, task = _taskiq(self._url)
        await broker.startup()
        sent: list[int] = []

        async def send(number: int) -> None:
            sent.append(time.monotonic_ns())
            await task.kiq(number)

        for start in range(0, len(numbers), 1 if pause else CALLERS):
            some = numbers[start : start + (1 if pause else CALLERS)]
            sending: list[Coroutine[Any, Any, None]] = [send(number) for number in some]
            await asyncio.gather(*sending)
            await asyncio.sleep(pause)
        await broker.shutdown()
        return sent

    def _ended(self, count: int) -> dict[int, int]:
        """When each began; waits for the last, as told on stdout at the end."""
        deadline = time.monotonic() + WITHIN_S
        while int(self._worker.asked()) < count:
            assert time.monotonic() < deadline, f"{self._name} does not get on"
            time.sleep(0.05)
        begun = dict(msgspec.json.decode(self._worker.stop(), type=list[tuple[int, int]]))
        assert len(begun) == count, f"{self._name} began {len(begun)} of {count}"
        return begun


def peers(ground: Ground, plan: Plan) -> list[Figure]:
    """End to end and latency of each peer that is installed."""
    figures: list[Figure] = []
    for name, module in (("huey", "huey"), ("taskiq", "taskiq_redis")):
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed: not measured")
            continue
        count = plan.tasks or TASKS

        def rate(name: str = name, count: int = count) -> float:
            return Peer(name, ground).rate(count)

        value, ratio, against = beside(ground.rate, rate, plan.repeats)
        figures.append(
            Figure(f"{name}: e2e", "tasks/s", value, 0.0, "a peer", True, ratio, against,
                   "keeps nothing", load_now())
        )  # fmt: skip
        figures += _latencies(name, ground, plan.repeats)
    return figures


def _latencies(name: str, ground: Ground, repeats: int) -> list[Figure]:
    hand_offs, takes = [ground.hand_off()], list[tuple[float, float]]()
    for _ in range(repeats):
        takes.append(Peer(name, ground).latency())
        hand_offs.append(ground.hand_off())
    figures: list[Figure] = []
    for i, which in enumerate(("p50", "p99")):
        mine, theirs = [t[i] for t in takes], [h[i] for h in hand_offs]
        ratio = [m / statistics.mean(theirs) for m in mine]
        figures.append(
            Figure(f"{name}: latency {which}", "µs", Spread.of(mine), float("inf"), "a peer", False,
                   Spread.of(ratio), Spread.of(theirs), load=load_now())
        )  # fmt: skip
    return figures


MAKE: dict[str, Callable[[str], tuple[Any, Any]]] = {"huey": _huey, "taskiq": _taskiq}
SERVE: dict[str, Callable[[str], None]] = {"huey": _serve_huey, "taskiq": _serve_taskiq}


def main(name: str, url: str) -> None:
    """A worker's process, to its end."""
    SERVE[name](url)
    print(msgspec.json.encode(_begun).decode(), flush=True)


if __name__ == "__main__":  # tasks go by the name of their module, which must not be __main__
    importlib.import_module("tests.bench.peers").main(*sys.argv[1:])
