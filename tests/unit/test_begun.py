"""A coroutine that begins at once is awaited like any other."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from services.runtime.begun import Begun

pytestmark = pytest.mark.anyio


async def test_it_runs_up_to_where_it_waits_and_then_on() -> None:
    steps: list[str] = []
    gate = asyncio.get_running_loop().create_future()

    async def work() -> str:
        steps.append("begun")
        steps.append(await gate)
        await anyio.lowlevel.checkpoint()
        return "ended"

    asyncio.get_running_loop().call_soon(lambda: gate.set_result("went on"))
    begun = Begun(work())
    assert steps == ["begun"]
    assert await begun == "ended"
    assert steps == ["begun", "went on"]


async def test_what_it_waits_for_may_have_come_before_anyone_awaits() -> None:
    gate = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await gate

    begun = Begun(work())
    gate.set_result(7)
    await anyio.lowlevel.checkpoint()
    assert await begun == 7


async def test_one_that_never_waits_and_one_that_fails() -> None:
    async def ends() -> int:
        return 7

    async def fails() -> int:
        raise ConnectionError("gone")

    assert await Begun(ends()) == 7
    begun = Begun(fails())
    with pytest.raises(ConnectionError):
        await begun


async def test_whoever_awaits_it_and_is_cancelled_ends_it() -> None:
    gate, ended = asyncio.get_running_loop().create_future(), anyio.Event()

    async def work() -> None:
        try:
            await gate
        finally:
            ended.set()

    begun = Begun(work())

    async def awaiting() -> None:
        await begun

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(awaiting)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert gate.cancelled()
    assert ended.is_set()
