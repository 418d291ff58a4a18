"""Forgetting under kill -9: whatever dies between any two steps, in the end no byte is left."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.keys import Keys
from events.log import WordsRemoved
from projections import fold
from projections.state import State
from services.client import bus as client_bus
from services.client import forgetting, traces
from services.store import rebuild
from services.store.client import SyncClient
from tests.conservation import conserved_over_http
from tests.crash.processes import Fleet
from tests.integration.test_engine_ground import settings_for
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

NAMESPACE = "forget"
KEYS = Keys(NAMESPACE)
TEXT = "Call Mrs. Abernathy, born 1961, about her loan number 5551234"
STEPS = (
    *("rewrite.begun", "rewrite.step:2", "rewrite.exchanged", "forget.log", "forget.intakes"),
    *("forget.letters", "forget.inboxes", "forget.aof", "forget.done", "append.after:2"),
)


class Ground:
    """A server of our own, a bus on it with a thousand tasks, hosts as processes."""

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer(folder / "redis").start()
        self.fleet = Fleet(self.server.url, NAMESPACE, folder)
        self.client = SyncClient(self.server.url)
        self.bus = client_bus.Bus(settings_for(NAMESPACE), self.client, KEYS)

    def end(self) -> None:
        self.fleet.end()
        self.client.close()
        self.server.stop()

    def fill(self, count: int) -> list[str]:
        """Submit; the ids, once all of them stand on the log."""
        tasks = [
            self.submit(f"{TEXT} {n}" if n % 100 == 0 else f"fix bug {n}") for n in range(count)
        ]
        self.client.call("XADD", KEYS.main_intake, "*", "type", "task.completed", "task", tasks[0])
        host = self.fleet.host()
        wait_blocking(lambda: len(self.state().tasks) == count, within=30, what=host.said())
        host.kill9()
        return tasks

    def submit(self, text: str) -> str:
        data = msgspec.json.encode({"text": text})
        place: bytes = self.client.call(
            "XADD", KEYS.main_intake, "*", "type", "task.submitted", "data", data
        )
        return place.decode()

    def events(self) -> list[Any]:
        return [e for batch in rebuild.read_log(self.client, KEYS) for e in batch]

    def state(self) -> State:
        return rebuild.rebuild(self.client, KEYS, snapshot=False)

    def removed(self) -> bool:
        """Whether the log says that all that was asked for is gone."""
        meta = self.state().meta
        return bool(meta.forgotten_id) and meta.words_removed == meta.forgotten_id

    def in_files(self) -> list[str]:
        """The server's files that hold the text, as they lie there."""
        files = [path for path in self.server.folder.rglob("*") if path.is_file()]
        return [path.name for path in files if TEXT[:20].encode() in path.read_bytes()]

    def places(self) -> list[str]:
        trace = traces.search(self.bus, traces.pieces_of([TEXT]))
        assert trace.left == []
        return trace.places


@pytest.fixture
def ground(tmp_path: Path) -> Generator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.end()


def digests(events: list[Any]) -> dict[str, str]:
    """The digest at the last event of each batch of a hundred."""
    state, known = State(), dict[str, str]()
    for n, event in enumerate(events):
        fold.apply(state, event)
        if n % 100 == 0:
            known[event.log_id] = state.digest()
    return known


def test_killed_between_any_two_steps(ground: Ground) -> None:
    """A host dies at each step in turn; the one after it finishes, and the state is what it was."""
    tasks = ground.fill(1_200)
    before = digests(ground.events())
    assert ground.places() != []
    forgetting.request(ground.bus, tasks[:1_200:100])
    for step in STEPS:
        host = ground.fleet.host(die_at=step)
        wait_blocking(
            lambda h=host: h.code is not None or ground.removed(), within=60, what=f"{step}"
        )
        if host.code is None:  # it had nothing to do there any more
            host.kill9()
            assert step in ("forget.done", "append.after:2"), (step, host.said())
        ground.client.call("DEL", KEYS.rewriter)  # as if its time had passed
    last = ground.fleet.host()
    wait_blocking(ground.removed, within=30, what=last.said())
    assert ground.in_files() == []  # said to be done only once the file was written anew
    assert ground.places() == []
    after = digests(ground.events())
    assert {place: after[place] for place in before} == before
    conserved_over_http(ground.server.url, ground.bus.settings)
    # No copy is left lying about.
    assert [key for key in ground.client.call("KEYS", "*") if b"rewrit" in key] == []


def looked_again(events: list[Any]) -> bool:
    """Whether words were taken out since the log went back."""
    types = [event.type for event in events]
    return WordsRemoved.type in types[types.index("log.went_back") :]


def test_two_hosts_and_a_torn_file(ground: Ground) -> None:
    """Two engines, and a server that comes back without the end of its file, the rewrite with it:
    the log says that it went back, and the words are taken out again."""
    tasks = ground.fill(300)
    hosts = [ground.fleet.host(), ground.fleet.host()]
    forgetting.request(ground.bus, tasks[::100])
    wait_blocking(ground.removed, within=30, what=hosts[0].said())
    idle = b"aof_rewrite_in_progress:0"  # either host may have the file written anew
    wait_blocking(lambda: idle in ground.server.call("INFO", "persistence"), within=20)
    behind = ground.submit("something behind it")
    wait_blocking(lambda: behind in ground.state().tasks, within=10)
    ground.server.kill9()
    file = ground.server.aof_file().read_bytes()
    ground.server.tear_aof(len(file) - file.index(b"something behind it"))
    ground.server.start()
    wait_blocking(lambda: "log.went_back" in {e.type for e in ground.events()}, within=30)
    wait_blocking(ground.removed, within=30, what=hosts[0].said())
    wait_blocking(lambda: looked_again(ground.events()), within=30, what="it is looked again")
    assert ground.places() == []
    assert all(host.code is None for host in hosts)
