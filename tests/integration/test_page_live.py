"""What the page shows of a bus on which nothing happens: time goes on all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import msgspec
import pytest

from services.client.bus import Bus as ClientBus
from services.store.client import SyncClient
from services.web import live
from services.web.live import Live
from tests.integration.test_engine_ground import Bus, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio


async def test_a_quiet_bus_is_shown_as_of_now(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a bus whose last event lies back, when somebody looks, then the first picture has the
    server's time, and one that has grown old is made anew though nothing happened."""
    monkeypatch.setattr(live, "OLD_S", 0.01)
    async with running(bus.host()):
        await bus.submit()
        await wait_until(lambda: bus.events("task.delegated"))

    @contextlib.contextmanager
    def opened() -> Generator[ClientBus]:
        with contextlib.closing(SyncClient(bus.url)) as client:
            yield ClientBus(bus.settings, client, bus.keys)

    page = Live(opened)
    page.viewers = 1
    state = bus.folded()
    state.meta.at -= 3_600_000_000  # an hour ago
    page.restored(state)
    seconds, _ = await bus.client.call("TIME")
    first = msgspec.json.decode((await page.picture()).overview)["now"]
    assert first >= int(seconds) * 1_000_000

    async def later() -> bool:
        return msgspec.json.decode((await page.picture()).overview)["now"] > first

    await wait_until(later, what="time goes on")
