"""T37 over a real Redis: a message per alert, whoever publishes it; commands and webhooks."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from services import hosting
from services.engine.host import Host
from services.runtime.settings import load
from services.runtime.settings_types import AlertSettings, HookSetting
from services.store.client import Client
from tests.integration.test_engine_ground import Bus, limit, running
from tests.subscribers import async_subscriber
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio

# What a hook of these tests does: it adds the message it reads to a file.
KEEP = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


def _command(file: Path, **more: Any) -> HookSetting:
    return HookSetting(command=(sys.executable, "-c", KEEP, str(file)), timeout_s=10, **more)


class Hooked(Bus):
    """A bus whose settings name hooks, and a limit of 1,000 tokens."""

    def __init__(self, url: str, namespace: str, *hooks: HookSetting) -> None:
        super().__init__(url, namespace, limits=(limit("global", "tokens", "month", 1_000),))
        self.settings = msgspec.structs.replace(self.settings, alerts=AlertSettings(hooks=hooks))
        self._more: list[Client] = []

    def another(self) -> Host:
        client = Client(self.url)
        self._more.append(client)
        return hosting.host(client, self.settings)

    async def close(self) -> None:
        for client in self._more:
            await client.close()
        await super().close()

    async def use(self, tokens: int) -> None:
        await self.tell("usage.recorded", agent="codex", total_tokens=tokens)

    async def said(self, count: int) -> None:
        await wait_until(lambda: len(self.events("alert.raised")) == count, what="alerts said")


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_two_hosts_publish_each_alert_once(redis_url: str, namespace: str) -> None:
    bus = Hooked(redis_url, namespace)
    pubsub = async_subscriber(bus.client.url)
    await pubsub.subscribe(bus.keys.alerts_channel)
    got: list[dict[str, Any]] = []

    async def listen() -> None:
        while True:
            found = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            if found:
                got.append(json.loads(found["data"]))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        async with running(bus.another(), bus.another()):
            for tokens, levels in ((850, 1), (60, 2), (50, 3), (40, 4)):
                await bus.use(tokens)
                await bus.said(levels)
            await wait_until(lambda: len(got) >= 4)
            await stays(lambda: len(got) == 4, during=0.3)
        group.cancel_scope.cancel()
    await pubsub.aclose()
    await bus.close()
    assert [m["level"] for m in got] == ["WARNING", "SOFT", "HARD", "CRITICAL"]
    assert [m["log_id"] for m in got] == [e.log_id for e in bus.events("alert.raised")]
    assert list(got[0])[:4] == ["type", "usage", "budget", "percentage"]


async def test_an_alert_nobody_published_before_a_crash_is_published_after_it(
    redis_url: str, namespace: str
) -> None:
    bus = Hooked(redis_url, namespace)
    async with running(bus.host("intake", "throttle")):
        await wait_until(lambda: bus.client.call("GET", bus.keys.alert_mark))
    async with running(bus.host("engine")):  # it decides, and never publishes
        await bus.use(850)
        await bus.said(1)
    pubsub = async_subscriber(bus.client.url)
    await pubsub.subscribe(bus.keys.alerts_channel)
    await pubsub.get_message(timeout=2.0)
    async with running(bus.host("throttle")):
        found = None
        with anyio.fail_after(5):
            while found is None:
                found = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
    assert json.loads(found["data"])["log_id"] == bus.events("alert.raised")[0].log_id
    await pubsub.aclose()
    await bus.close()


async def test_a_command_gets_each_alert_of_its_level_once_though_two_hosts_run(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    every, hard = tmp_path / "every", tmp_path / "hard"
    bus = Hooked(redis_url, namespace, _command(every), _command(hard, level="HARD"))
    async with running(bus.another(), bus.another()):
        await bus.use(850)
        await bus.said(1)
        await bus.use(145)
        await bus.said(2)
        await wait_until(lambda: len(_lines(every)) >= 2 and len(_lines(hard)) >= 1, within=10)
        await stays(lambda: len(_lines(every)) == 2 and len(_lines(hard)) == 1, during=0.5)
    async with running(bus.another()):  # a restart repeats nothing
        await stays(lambda: len(_lines(every)) == 2, during=0.5)
    await bus.close()
    assert [m["level"] for m in _lines(every)] == ["WARNING", "CRITICAL"]
    assert [m["level"] for m in _lines(hard)] == ["CRITICAL"]


async def test_a_command_that_cannot_run_fails_or_hangs_stops_nothing(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    hooks = (
        HookSetting(command=(str(tmp_path / "missing"),)),
        HookSetting(command=(sys.executable, "-c", "raise SystemExit(3)")),
        HookSetting(command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout_s=1),
        _command(kept),
    )
    bus = Hooked(redis_url, namespace, *hooks)
    async with running(bus.another()):
        await bus.use(850)
        await wait_until(lambda: len(_lines(kept)) == 1, within=10)
        await bus.use(60)
        await wait_until(lambda: len(_lines(kept)) == 2, within=10)
    await bus.close()


class Catcher(BaseHTTPRequestHandler):
    """Takes what is posted; says no to the first request."""

    got: list[dict[str, Any]]
    asked: int

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        good = type(self).asked > 1
        if good:
            type(self).got.append(json.loads(body))
        self.send_response(200 if good else 503)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def catcher() -> Generator[tuple[str, type[Catcher]]]:
    handler = type("Handler", (Catcher,), {"got": [], "asked": 0})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alert", handler
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_webhook_is_tried_again_until_it_takes_the_alert(
    redis_url: str, namespace: str, catcher: tuple[str, type[Catcher]]
) -> None:
    url, handler = catcher
    bus = Hooked(redis_url, namespace, HookSetting(url=url))
    async with running(bus.another()):
        await bus.use(850)
        await wait_until(lambda: len(handler.got) == 1, within=10)
    await bus.close()
    assert (handler.got[0]["level"], handler.asked) == ("WARNING", 2)


def test_hooks_are_settings_and_there_is_none_by_default(tmp_path: Path) -> None:
    nothing = load(environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert nothing.alerts.hooks == ()
    (tmp_path / "asb.toml").write_text(
        '[[alerts.hooks]]\ncommand = ["notify", "--now"]\n'
        '[[alerts.hooks]]\nurl = "https://example.org/x"\nlevel = "HARD"\n'
    )
    hooks = load(environ={"HOME": "/nowhere"}, cwd=tmp_path).alerts.hooks
    assert [str(hook) for hook in hooks] == ["notify", "https://example.org/x"]
