"""A Python worker as a user writes one: a decorated function in a program of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import anyio
import pytest

from events.keys import Keys
from services.store.client import Client
from services.worker import Task, worker
from tests.integration.test_worker_session import Engine
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

PROGRAM = """
import anyio
from services.worker import Result, Task, Usage, worker

@worker("w1", agent="codex", capacity=10)
async def handle(task: Task) -> Result:
    if task.text == "hang":
        await anyio.sleep_forever()
    return Result(task.text.upper(), usage=Usage(output_tokens=1))

handle.run()
"""


@pytest.fixture
def program(redis_url: str, namespace: str) -> Generator[subprocess.Popen[bytes]]:
    about = {"ASB_REDIS_URL": redis_url, "ASB_NAMESPACE": namespace}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **about},
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate(timeout=10)


async def ended(process: subprocess.Popen[bytes]) -> int:
    await wait_until(lambda: process.poll() is not None, within=20, what="the program ends")
    return process.returncode


async def test_a_decorated_function_works_and_stops_cleanly_on_sigterm(
    client: Client, keys: Keys, program: subprocess.Popen[bytes]
) -> None:
    engine = Engine(client, keys)
    await engine.joined()
    await engine.dispatch("t1", "hello")
    said = await engine.report("task.completed", "t1")
    assert (said["result"], said["usage"]) == ("HELLO", {"output_tokens": 1})
    program.send_signal(signal.SIGTERM)
    assert await ended(program) == 0
    assert [kind for _, kind, _ in await engine.entries()][-1] == "worker.left"


async def test_a_second_signal_does_not_wait_for_running_tasks(
    client: Client, keys: Keys, program: subprocess.Popen[bytes]
) -> None:
    engine = Engine(client, keys)
    await engine.joined()
    await engine.dispatch("t1", "hang")
    await engine.report("task.started", "t1")
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGINT)  # two different ones: equal ones may be delivered as one
    with anyio.fail_after(8):  # the grace is ten seconds
        await ended(program)
    assert (await engine.report("task.failed", "t1"))["error"] == "worker stopped"
    assert [kind for _, kind, _ in await engine.entries()][-1] == "worker.left"


async def test_the_decorated_function_is_still_a_function() -> None:
    @worker("w1", capacity=3)
    async def handle(task: Task) -> str:
        """What it is for."""
        return task.text

    async def send(task: Task, document: object) -> None: ...

    task = Task({b"task": b"t1", b"attempt": b"1", b"text": b"x"}, worker="w1", send=send)
    assert await handle(task) == "x"
    assert handle.__doc__ == "What it is for."
    assert handle.options.capacity == 3


async def test_a_function_that_is_not_async_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="async def"):
        worker("w1")(lambda task: None)  # type: ignore[arg-type, return-value]
