"""A server that takes connections and says nothing: it is given up, and who asked goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.runtime.errors import RedisUnavailable
from services.store.address import SILENCE_SECONDS
from services.store.client import Client, SyncClient
from services.store.connection import Wire
from tests.certificates import SERVER, Authority
from tests.e2e.cli import Up, asb
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from tests.wait import wait_blocking, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

LATE_S = 4 * SILENCE_SECONDS  # machines are busy
KINDS = ["plain", "options", *(["tls"] if SERVER else [])]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[RedisServer]:
    authority = Authority(tmp_path / "ca") if request.param == "tls" else None
    made = RedisServer(tmp_path / "redis", authority=authority).start()
    if request.param == "options":
        made.url += "?socket_keepalive=True"
    yield made
    made.kill9()


@pytest.fixture(scope="module")
def hole() -> Generator[int]:
    """A port whose system takes connections, and nobody else does."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


async def test_who_falls_silent_is_given_up_and_asked_anew_once_he_speaks(
    server: RedisServer,
) -> None:
    """By connections that there are, by new ones, by who reads for long and by who listens."""
    client, fresh = Client(server.url), Client(server.url)
    waiting, listening = SyncClient(server.url), SyncClient(server.url)
    heard, messages = client.messages("a:*"), listening.messages("b")
    read = ("XREAD", "BLOCK", 2_000, "STREAMS", "nothing", "$")
    assert await client.call("SET", "x", 1) == b"OK"
    assert waiting.call("GET", "x") == b"1"
    assert ((await anext(heard))[0], next(messages)[0]) == (b"psubscribe", b"subscribe")
    server.freeze()
    asked = [
        client.call("INCR", "x"),
        client.block(*read),
        fresh.call("PING"),
        anext(heard),
        asyncio.to_thread(waiting.call, "PING"),
        asyncio.to_thread(SyncClient(server.url).call, "PING"),
        asyncio.to_thread(next, messages),
    ]
    try:
        async with asyncio.timeout(LATE_S):
            answers = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        server.thaw()
    assert [type(answer) for answer in answers] == [RedisUnavailable] * len(asked)
    assert all("it says nothing" in str(answer) for answer in answers)

    async def answers_again() -> bool:
        with contextlib.suppress(RedisUnavailable):
            return await client.call("PING") == waiting.call("PING") == b"PONG"
        return False

    await wait_until(answers_again, what="it is asked anew")
    messages.close()
    for each in (waiting, listening):
        each.close()
    for each in (client, fresh):
        await each.close()


async def test_who_only_listens_asks_whether_the_server_is_there(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has no messages is not one that is gone."""
    monkeypatch.setattr(Wire.ask, "__defaults__", (0.2, None))
    client = Client(server.url)
    heard = client.messages("a:*")
    assert (await anext(heard))[0] == b"psubscribe"
    coming = asyncio.ensure_future(anext(heard))

    async def pinged() -> bool:
        said = await client.call("INFO", "commandstats")
        return int(said.partition(b"cmdstat_ping:calls=")[2].partition(b",")[0] or 0) >= 3

    await wait_until(pinged, what="it is asked again and again")
    assert await client.call("PUBLISH", "a:1", "x") == 1
    assert await coming == [b"pmessage", b"a:*", b"a:1", b"x"]
    await heard.aclose()
    await client.close()


COMMANDS = (
    *(("status",), ("submit", "Say hello"), ("doctor",), ("throttle",), ("tasks",), ("events",)),
    *(("service", "engine"), ("up",), ("cancel", "T-1"), ("redis", "--command=keys")),
)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{hole}/0",
        "rediss://127.0.0.1:{hole}/0",
        "redis+sentinel://127.0.0.1:{hole}/bus",
        "redis+cluster://127.0.0.1:{hole}",
    ],
)
def test_every_command_ends_and_says_why(hole: int, tmp_path: Path, url: str) -> None:
    url = url.format(hole=hole)

    def ends(command: tuple[str, ...]) -> tuple[int, str]:
        done = asb(*command, f"--redis={url}", cwd=tmp_path, seconds=3 * LATE_S)
        return done.returncode, done.stdout + done.stderr

    with ThreadPoolExecutor(5) as threads:
        for command, (code, said) in zip(COMMANDS, threads.map(ends, COMMANDS), strict=True):
            assert code == 1, (command, said)
            assert "no Redis answers at" in said, (command, said)
            assert "it says nothing" in said, (command, said)
            assert "Traceback" not in said, (command, said)


class FrozenUp:
    """`asb up` with a worker, and what is submitted to it while a server says nothing."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._where = folder, (f"--redis={url}", "--namespace=up")
        self.up = Up(folder, *self._where, "--workers=1", "--", "cat").start()

    def run(self, *arguments: str) -> str:
        """What a command prints, "" where it fails."""
        done = asb(arguments[0], *self._where, *arguments[1:], cwd=self._folder, seconds=LATE_S * 3)
        assert "Traceback" not in done.stderr
        return done.stdout if done.returncode == 0 else ""

    def ends(self, name: str) -> bool:
        return "completed" in self.run("submit", f"--id={name}", "--wait", "Say hello")

    def each_ended_once(self, number: int) -> None:
        events = self.run("events", "--type=task.completed", "--json").splitlines()
        ended = [json.loads(event)["data"]["task"] for event in events]
        assert len(ended) == len(set(ended)) == number
        assert self.run("replay", "--verify")


def test_a_bus_goes_on_once_its_server_speaks_again(server: RedisServer, tmp_path: Path) -> None:
    bus = FrozenUp(tmp_path, server.url)
    try:
        assert bus.ends("before")
        server.freeze()
        assert not bus.run("submit", "--id=meanwhile", "Say hello"), "nobody acknowledged it"
        server.thaw()
        wait_blocking(lambda: bus.ends("meanwhile"), within=90)
        wait_blocking(lambda: bus.ends("after"), within=90)
        bus.each_ended_once(3)
    finally:
        server.thaw()
        bus.up.end()


def test_behind_sentinel_a_bus_goes_to_the_heir_of_a_primary_that_stays_silent(
    tmp_path: Path,
) -> None:
    sentinels = Sentinels(tmp_path / "servers").start()
    bus = FrozenUp(tmp_path, sentinels.url)
    before = sentinels.primary
    try:
        assert bus.ends("before")
        before.freeze()
        sentinels.failed_over(before)
        wait_blocking(lambda: bus.ends("after"), within=90, what="the heir serves the bus")
        before.thaw()
        sentinels.settled()
        assert bus.ends("again")
        bus.each_ended_once(3)
    finally:
        before.thaw()
        bus.up.end()
        sentinels.stop()
