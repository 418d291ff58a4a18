"""Views: they say which place on the log they stand for, and equal the fold there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from projections import views
from tests.integration.test_engine_ground import Bus, Hands, limit, running
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    made = Bus(redis_url, namespace, limits=(limit("global", "tokens", "hour", 100_000),))
    yield made
    await made.close()


async def view(bus: Bus, key: str) -> dict[str, Any]:
    found = await bus.client.call("GET", key)
    return msgspec.json.decode(found) if found else {}


async def test_views_follow_the_log_and_equal_the_fold(bus: Bus) -> None:
    async with running(bus.host()):
        worker = await Hands(bus).join()
        for _ in range(3):
            await bus.submit()
            await worker.does(await worker.takes(), tokens=1_234)

        async def final_charge() -> bool:
            last = bus.events()[-1].log_id
            both = [await view(bus, k) for k in (bus.keys.throttle, bus.keys.token_usage)]
            return len(bus.folded().outcomes) == 3 and all(v.get("as_of") == last for v in both)

        await wait_until(final_charge, within=10)
    state = bus.folded()
    assert await view(bus, bus.keys.token_usage) == _plain(views.token_usage_view(state))
    assert await view(bus, bus.keys.throttle) == _plain(views.throttle_view(state, state.meta.at))


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


async def test_a_view_that_was_deleted_comes_back_with_the_next_event(bus: Bus) -> None:
    async with running(bus.host()):
        await bus.submit()
        await wait_until(lambda: view(bus, bus.keys.throttle))
        await bus.client.call("DEL", bus.keys.throttle)
        await bus.submit()
        await wait_until(lambda: view(bus, bus.keys.throttle))


async def test_a_view_of_a_later_place_is_left_alone(bus: Bus) -> None:
    later = b'{"as_of":"99999999999999-0"}'
    await bus.client.call("SET", bus.keys.throttle, later)
    async with running(bus.host()):
        await bus.submit()
        await wait_until(lambda: view(bus, bus.keys.token_usage))

        async def untouched() -> bool:
            return await bus.client.call("GET", bus.keys.throttle) == later

        await stays(untouched, during=0.3)


async def test_a_projector_alone_keeps_the_views(bus: Bus) -> None:
    async with running(bus.host("intake", "delegator", "dispatcher", "inbox")):
        await bus.submit()
        await wait_until(lambda: bus.events("task.delegated"))
    assert await view(bus, bus.keys.throttle) == {}
    async with running(bus.host("throttle", "usage")):

        async def there() -> bool:
            found = await view(bus, bus.keys.throttle)
            return found.get("as_of") == bus.events()[-1].log_id

        await wait_until(there)
