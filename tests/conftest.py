"""Ground of all tests: one real Redis a session, one namespace a test, no key left behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
from collections.abc import AsyncGenerator, Generator

import hypothesis
import pytest

from events.keys import Keys
from services.store.client import Client, SyncClient
from tests.servers import shared_server

# A shared machine is slow at times: a deadline per example would only find that out.
hypothesis.settings.register_profile("asb", deadline=None)
hypothesis.settings.load_profile("asb")

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be all we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Keys that may stay without an expiry: they are the record, or views of it that are rewritten.
_MAY_STAY = re.compile(
    r"""(?x) ^ (?: \{ NAMESPACE:[^}]+ \} : .+
      | NAMESPACE: (?: events | intake (?: : .+ )? | deadletter | inbox : .+
                     | progress : .+ | agents:token:usage | report : .+ | throttle ) ) $"""
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked ``anyio`` run on asyncio, as the program does."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """URL of the session's real Redis: AOF on, fsync every second, shared by all tests."""
    with shared_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def server(redis_url: str) -> str:
    """The session's Redis under its other name."""
    return redis_url


@pytest.fixture
def namespace(redis_url: str) -> Generator[str]:
    """A namespace of the test's own. Afterwards its keys are checked for leaks and deleted."""
    name = f"t{secrets.token_hex(5)}"
    yield name
    with contextlib.closing(SyncClient(redis_url)) as sync:
        leaked = leaks(sync, name)
        for key in keys_of(sync, name):
            sync.call("DEL", key)
    assert not leaked, f"keys left for ever, neither on the allow list nor expiring: {leaked}"


@pytest.fixture
def keys(namespace: str) -> Keys:
    """The key names of the test's namespace."""
    return Keys(namespace)


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Client]:
    """An asyncio client of the session's Redis."""
    opened = Client(redis_url)
    yield opened
    await opened.close()


def keys_of(sync: SyncClient, namespace: str) -> list[str]:
    """Every key of a namespace, internal ones included."""
    found: set[str] = set()
    for pattern in (f"{namespace}:*", f"{{{namespace}:*"):
        cursor = b"0"
        while True:
            cursor, batch = sync.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            found.update(key.decode("utf-8", "replace") for key in batch)
            if cursor == b"0":
                break
    return sorted(found)


def leaks(sync: SyncClient, namespace: str) -> list[str]:
    """Keys of the namespace that never expire and are not known to stay."""
    allowed = re.compile(_MAY_STAY.pattern.replace("NAMESPACE", re.escape(namespace)))
    suspects = [key for key in keys_of(sync, namespace) if not allowed.match(key)]
    return [key for key in suspects if sync.call("TTL", key) == -1]


# -- skips -------------------------------------------------------------------------------------


def _skip_reasons(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports: list[pytest.TestReport] = reporter.stats.get("skipped", []) if reporter else []
    return [
        str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in reports
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was not tested: a skip must be seen."""
    if reasons := _skip_reasons(config):
        listed = "; ".join(sorted(set(reasons)))
        terminalreporter.write_line(f"{len(reasons)} skipped: {listed}", yellow=True)
        if _no_skips():
            terminalreporter.write_line("ASB_TEST_NO_SKIPS is set: a skip is a failure", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under ASB_TEST_NO_SKIPS=1 a run with a skip has failed."""
    if _no_skips() and session.exitstatus == pytest.ExitCode.OK and _skip_reasons(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _no_skips() -> bool:
    return os.environ.get("ASB_TEST_NO_SKIPS") == "1"
