"""Connections to a Redis, by whatever URL: plain ones are our own, others are made by redis-py."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.store import address
from services.store.client import Client, SyncClient
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """One with a user of its own, a socket, and a default user without password."""
    folder = tmp_path_factory.mktemp("redis")
    made = RedisServer(folder, options=("--unixsocket", str(folder / "socket"))).start()
    with contextlib.closing(SyncClient(made.url)) as client:
        client.call("ACL", "SETUSER", "worker@1", "on", ">p:w/d?", "~*", "&*", "+@all")
    yield made
    made.stop()


@pytest.fixture
def speaks_http() -> Generator[str]:
    """The address of a server that knows no other protocol."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def urls(server: RedisServer) -> dict[str, str]:
    login = "worker%401:p%3Aw%2Fd%3F@"
    return {
        "plain": server.url,
        "login": server.url.replace("://", f"://{login}"),
        "database": server.url.removesuffix("/0") + "/3",
        "socket": f"unix://{server.folder / 'socket'}",
        "options": server.url + "?socket_keepalive=True",
    }


@pytest.mark.parametrize("kind", ["plain", "login", "database", "socket", "options"])
async def test_every_kind_of_url_leads_there(server: RedisServer, kind: str) -> None:
    url = urls(server)[kind]
    assert (address.plain(url) is None) == (kind == "options")
    client = Client(url)
    with contextlib.closing(SyncClient(url)) as waiting:
        assert waiting.call("SET", "who", kind) == b"OK"
        assert await client.call("GET", "who") == kind.encode()
        name = b"worker@1" if kind == "login" else b"default"
        assert waiting.call("ACL", "WHOAMI") == await client.call("ACL", "WHOAMI") == name
        assert b"db=3" in await client.call("CLIENT", "INFO") or kind != "database"
        assert waiting.pipeline([("INCR", "n"), ("LPUSH", "who", 1)])[0] == 1
        assert isinstance(waiting.pipeline([("LPUSH", "who", 1)])[0], CommandRefused)
        waiting.call("DEL", "n")
    await client.close()


@pytest.mark.parametrize("kind", ["plain", "options"])
@pytest.mark.parametrize("login", ["worker%401:wrong@", ":unasked@"])
async def test_a_wrong_login_is_unsuitable(server: RedisServer, kind: str, login: str) -> None:
    """`:unasked@` is a password where none is asked for."""
    url = urls(server)[kind].replace("://", f"://{login}")
    with pytest.raises(RedisUnsuitable, match="refused the login"):
        SyncClient(url).call("PING")
    with pytest.raises(RedisUnsuitable, match="refused the login"):
        await Client(url).call("PING")


def test_a_connection_that_was_closed_meanwhile_is_made_anew(server: RedisServer) -> None:
    """A server that was restarted, or a timeout of its own: nobody notices."""
    with (
        contextlib.closing(SyncClient(server.url)) as client,
        contextlib.closing(SyncClient(urls(server)["login"])) as operator,
    ):
        before = client.call("CLIENT", "ID")
        operator.call("CLIENT", "KILL", "ID", before)
        assert client.call("CLIENT", "ID") != before


def test_a_connection_lost_in_the_middle_is_unavailable(server: RedisServer) -> None:
    def kill() -> bool:
        lines = operator.call("CLIENT", "LIST").splitlines()
        waiting = [line for line in lines if b" cmd=blpop" in line]
        return any(operator.call("CLIENT", "KILL", "ID", x.split()[0][3:]) for x in waiting)

    with (
        contextlib.closing(SyncClient(server.url)) as client,
        contextlib.closing(SyncClient(server.url)) as operator,
    ):
        killer = threading.Thread(target=wait_blocking, args=(kill, 20))
        killer.start()
        with pytest.raises(RedisUnavailable, match="no Redis answers at"):
            client.call("BLPOP", "nothing", 20)
        killer.join()
        assert client.call("PING") == b"PONG"


@pytest.mark.parametrize("form", [
    "redis://{}", "redis://{}?socket_keepalive=True", "redis+cluster://{}",
    "redis+sentinel://{}/bus",
])  # fmt: skip
async def test_who_speaks_something_else_is_no_redis(form: str, speaks_http: str) -> None:
    """Who is cut off may be answered by somebody on the way: that is an outage, and no end."""
    url = form.format(speaks_http)
    with pytest.raises(RedisUnavailable, match=r'no Redis answers at .* got "<" as reply'):
        SyncClient(url).call("PING")
    with pytest.raises(RedisUnavailable, match=r'no Redis answers at .* got "<" as reply'):
        await Client(url).call("PING")


async def test_messages_come_as_they_are_published(server: RedisServer) -> None:
    client = Client(server.url)
    heard = client.messages("a:*", "b:*")
    assert [(await anext(heard))[:2] for _ in range(2)] == [
        [b"psubscribe", b"a:*"],
        [b"psubscribe", b"b:*"],
    ]
    await client.pipeline([("PUBLISH", "a:1", "x"), ("PUBLISH", "c", "y"), ("PUBLISH", "b:2", "z")])
    assert await anext(heard) == [b"pmessage", b"a:*", b"a:1", b"x"]
    assert await anext(heard) == [b"pmessage", b"b:*", b"b:2", b"z"]
    await heard.aclose()
    with contextlib.closing(SyncClient(server.url)) as waiting:
        one = waiting.messages("c")
        assert next(one) == [b"subscribe", b"c", 1]
        await client.call("PUBLISH", "c", "word")
        assert next(one) == [b"message", b"c", b"word"]
        one.close()
    await client.close()


@pytest.mark.parametrize("what", ["services.cli.view", "services.cli.up", "services.cli.work"])
def test_a_plain_redis_needs_no_redis_py(what: str, server: RedisServer) -> None:
    """It takes longer to load than most commands take in all."""
    code = (
        f"import sys, {what}\n"
        "from services.store.client import SyncClient\n"
        f"SyncClient({server.url!r}).call('PING')\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'redis'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
