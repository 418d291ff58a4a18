"""T41: Redis is away, full, read-only, stalled or forgetful: nothing is admitted meanwhile, and
everything goes on afterwards without a restart. There is no enforcement but on the log."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from services.runtime.errors import AsbError, CommandRefused
from tests.budget.ground import audit_of, often, raw_log
from tests.integration.test_engine_ground import Bus, Hands, limit, proven, running
from tests.servers import RedisServer
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio
DURING_S = often(1, 5)


class Fault(NamedTuple):
    """What goes wrong and how it ends; ``loud``: writing fails meanwhile."""

    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]
    loud: bool = True


def _signal(number: int) -> Callable[[RedisServer], object]:
    def send(server: RedisServer) -> None:
        assert server.process is not None
        server.process.send_signal(number)

    return send


def _call(*command: str) -> Callable[[RedisServer], object]:
    return lambda server: server.call(*command)


def _nothing(_server: RedisServer) -> None:
    """It ends by itself."""


FAULTS: dict[str, Fault] = {
    "it forgets its scripts": Fault(_call("SCRIPT", "FLUSH"), _nothing, loud=False),
    "it cuts every connection": Fault(
        _call("CLIENT", "KILL", "TYPE", "normal"), _nothing, loud=False
    ),
    "it is full": Fault(
        _call("CONFIG", "SET", "maxmemory", "1mb"),
        _call("CONFIG", "SET", "maxmemory", "0"),
    ),
    "it is made a replica": Fault(
        _call("REPLICAOF", "127.0.0.1", "1"), _call("REPLICAOF", "NO", "ONE")
    ),
    "it stands still": Fault(_signal(signal.SIGSTOP), _signal(signal.SIGCONT)),
    "it is killed and loads its log": Fault(RedisServer.kill9, RedisServer.start),
}


@pytest.mark.parametrize("what", sorted(FAULTS))
async def test_nothing_is_admitted_without_redis_and_all_goes_on_afterwards(
    what: str, tmp_path: Path
) -> None:
    fault = FAULTS[what]
    server = RedisServer(tmp_path / "redis", appendfsync="always").start()
    bus = Bus(server.url, "away", limits=(limit("global", "tokens", "month", 4_000),))
    try:
        host = bus.host()
        async with running(host):
            worker = await Hands(bus).join(capacity=10)
            await worker.does(await _dispatched(bus, worker), tokens=1_000)
            # A turn on its way to the log is undone when Redis dies: wait until it stands there.
            await wait_until(
                lambda: not host.state.tasks and not host.state.ahead, what="the first task is done"
            )
            before = host.state.meta.log_id
            fault.begin(server)
            if fault.loud:
                with anyio.move_on_after(DURING_S) as waiting, contextlib.suppress(*LOUD):
                    await bus.submit("while it is away", estimate_tokens=10)
                    waiting.cancel()
                await stays(lambda: host.state.meta.log_id == before, during=DURING_S)
            fault.end(server)
            tasks: list[str] = []

            async def taken_in() -> bool:
                with contextlib.suppress(*LOUD):
                    tasks.append(await bus.submit(estimate_tokens=1_000))
                return bool(tasks)

            await wait_until(taken_in, within=20, what="a submission after it")
            entry = await worker.takes(within=20)
            while entry["task"] != tasks[0]:  # what was submitted while it stood still
                await worker.does(entry, tokens=10)
                entry = await worker.takes(within=20)
            await worker.does(entry, tokens=1_000)
            # A fourth thousand would pass the gate: what is used was not forgotten.
            more = await bus.submit(estimate_tokens=2_000)
            await wait_until(lambda: more in host.state.tasks, within=10)
            await stays(lambda: host.state.tasks[more].status == "queued", during=0.2)
        proven(bus)
        assert audit_of(raw_log(server.url, bus.keys.log)).findings == []
    finally:
        await bus.close()
        if server.process is not None:
            server.process.send_signal(signal.SIGCONT)
        server.stop()


LOUD = (AsbError, CommandRefused)


async def _dispatched(bus: Bus, worker: Hands) -> dict[str, str]:
    await bus.submit(estimate_tokens=1_000)
    return await worker.takes()
