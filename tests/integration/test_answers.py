"""What is said of orders that the engine takes in and that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import anyio.to_thread
import pytest
from msgspec.structs import replace

from services.client import orders
from services.client.bus import Bus as ClientBus
from services.client.bus import opened
from services.client.follow import Answers
from tests.integration.test_engine_ground import Bus, Hands, asb_on, running, settings_for
from tests.wait import wait_until

pytestmark = pytest.mark.anyio
T = TypeVar("T")
BUSY_S = 60.0  # a heartbeat may be late


@pytest.fixture
def there(bus: Bus) -> Generator[ClientBus]:
    with opened(replace(settings_for(bus.keys.namespace), redis_url=bus.url)) as client:
        yield client


async def beside(call: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(call)


async def test_a_second_cancellation_is_as_before_and_no_missing_engine(
    bus: Bus, there: ClientBus, capsys: pytest.CaptureFixture[str]
) -> None:
    asb = asb_on(bus, capsys)
    async with running(bus.host()):
        worker = await Hands(bus).join()
        task = await bus.submit()
        await worker.takes()
        assert await asb("cancel", task) == f"{task}  being cancelled\n"

        async def again() -> bool:
            return await asb("cancel", task) == f"{task}  being cancelled (as before)\n"

        await wait_until(again)

        async def by_the_page() -> bool:
            said = await beside(lambda: orders.cancel(there, task))
            return said == orders.Reply(True, f"{task} is being cancelled (as before)")

        await wait_until(by_the_page)
    assert len(bus.events("task.cancel_requested")) == 1


async def test_an_order_that_changes_nothing_is_told_from_one_that_nobody_took(
    bus: Bus, there: ClientBus
) -> None:
    def told(within_s: float) -> tuple[list[str], Answers]:
        answers, said = Answers(there), list[str]()
        sent = there.send("worker.paused", {"worker": "w1"})
        answers.expect(sent, "w1")
        assert answers.refused(said.append, within_s) == 0
        return said, answers

    async with running(bus.host()):
        await Hands(bus).join()
        said, answers = await beside(lambda: told(BUSY_S))
        assert (said, list(answers.events)) == ([], ["w1"])
        said, answers = await beside(lambda: told(BUSY_S))
        assert (said, answers.unchanged) == (["w1: so it was before; nothing changed"], ["w1"])
    said, answers = await beside(lambda: told(0.5))
    assert answers.unchanged == []
    assert said[0].startswith("no engine has taken this in yet")
