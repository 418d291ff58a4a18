"""What a bus takes while nobody asks for anything, what it keeps, and many workers on one bus."""

from __future__ import annotations

import math
import time

import msgspec

from projections.records import ALIVE
from services.store import rebuild
from tests.bench.ground import Bus, Child, Ground, load_now
from tests.bench.measures import Figure, Plan, Spread, wave
from tests.bench.titles import titles

IDLE_S, BEAT_S = 10.0, 5.0
WORKERS, LEASE_S = 1_000, 60
OPEN = 20_000
_encode = msgspec.json.Encoder().encode


def idle(ground: Ground, plan: Plan) -> list[Figure]:
    """CPU of the engine and of the server while nothing happens, in percent of a core."""
    bus = Bus(ground)
    wave(bus, 500)
    engine, server = list[float](), list[float]()
    for _ in range(plan.repeats):
        before, began = (bus.engine.cpu, ground.server_cpu), time.monotonic()
        time.sleep(IDLE_S)
        passed = time.monotonic() - began
        engine.append(100 * (bus.engine.cpu - before[0]) / passed)
        server.append(100 * (ground.server_cpu - before[1]) / passed)
    bus.stop()
    figures = (("idle: engine", engine), ("idle: Redis", server))
    return [_percent(name, values, 1.0) for name, values in figures]


def memory(ground: Ground, plan: Plan) -> list[Figure]:
    """Bytes of an open task and of an ended task's events, in the engine's process and in Redis."""
    count = plan.tasks or OPEN
    return [*_ended(ground, count), *_open(ground, count)]


def _ended(ground: Ground, count: int) -> list[Figure]:
    bus = Bus(ground)
    wave(bus, count)  # as many are open at once as in the next one, and what they took is free
    host, server, entries = bus.engine.resident, _used(ground), bus.length
    wave(bus, count)
    events = bus.length - entries
    figures = [
        _bytes("memory: an ended task, engine", (bus.engine.resident - host) / count),
        _bytes("memory: an event, Redis", (_used(ground) - server) / events, "with its intake"),
    ]
    bus.stop()
    return figures


def _open(ground: Ground, count: int) -> list[Figure]:
    bus = Bus(ground)
    wave(bus, 1_000)
    bus.worker.stop()
    host, server, before = bus.engine.resident, _used(ground), bus.length
    bus.submit(titles(count, bus.titled))
    while bus.length < before + 2 * count:  # submitted and routed
        time.sleep(0.1)
    figures = [
        _bytes("memory: an open task, engine", (bus.engine.resident - host) / count),
        _bytes("memory: an open task, Redis", (_used(ground) - server) / count, "with its intake"),
    ]
    bus.engine.stop()
    return figures


def fleet(ground: Ground, plan: Plan) -> list[Figure]:
    """A thousand workers that show their heartbeats: the engine's CPU in percent of a core."""
    keys = ground.keys()
    engine = Child("engine", ground.url, keys.namespace)
    names = [f"w{n}" for n in range(WORKERS)]
    joined = ground.client.pipeline(
        ("XADD", keys.main_intake, "*", "type", "worker.joined", "data",
         _encode({"worker": name, "agent": "claude", "capacity": 1, "lease_s": LEASE_S}))
        for name in names
    )  # fmt: skip

    def beat() -> None:
        ground.client.pipeline(
            ("SET", keys.worker(name), session, "EX", LEASE_S)
            for name, session in zip(names, joined, strict=True)
        )

    beat()
    taken: list[float] = []
    time.sleep(2 * BEAT_S)
    for _ in range(plan.repeats):
        before, began = engine.cpu, time.monotonic()
        while (passed := time.monotonic() - began) < 2 * BEAT_S:
            beat()
            time.sleep(BEAT_S)
        taken.append(100 * (engine.cpu - before) / passed)
    engine.stop()
    workers = rebuild.rebuild(ground.client, keys, snapshot=False).workers.values()
    assert [worker.status for worker in workers] == WORKERS * [ALIVE]
    return [_percent(f"{WORKERS:,} workers: engine", taken, 10.0)]


def _used(ground: Ground) -> int:
    return int(ground.info("memory")["used_memory"])


def _percent(name: str, values: list[float], aim: float) -> Figure:
    text = f"≤ {aim:g} %"
    return Figure(name, "% of a core", Spread.of(values), aim, text, False, load=load_now())


def _bytes(name: str, value: float, notes: str = "") -> Figure:
    spread, load = Spread.of([value]), load_now()
    return Figure(name, "bytes", spread, math.inf, "printed", False, notes=notes, load=load)
