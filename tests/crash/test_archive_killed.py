"""The log is cut under kill -9 of who cuts it, at every step; of hosts and Redis, under load."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import text_of
from events.keys import Keys
from projections.records import RUNNING
from projections.state import State
from services.archive.copying import Archive
from services.client import bus as client_bus
from services.client.follow import story
from services.runtime.errors import RedisUnavailable
from services.runtime.settings_around import ArchiveSettings
from services.store import rebuild
from services.store.client import SyncClient
from services.store.history import read_mark
from tests.conservation import conserved_over_http
from tests.crash.processes import Fleet, Process
from tests.integration.test_engine_ground import audit, held, settings_for
from tests.servers import RedisServer
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

PROVE = os.environ.get("ASB_TEST_PROVE") == "1"
NAMESPACE = "cut"
KEYS = Keys(NAMESPACE)
OPEN = "Call Mrs. Abernathy about her loan"
STEPS = (
    *("archive.written", "archive.marked", "archive.covered", "snapshot.before_set"),
    *("archive.carried", "archive.begins", "archive.cut", "archive.swept"),
)
ROUNDS = 20 if PROVE else 4
TASKS = 250  # by each of two submitters, a round


class Ground:
    """A server of our own, hosts and workers on it, and an archive."""

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer(folder / "redis").start()
        self.archives = folder / "archives"
        self.fleet = Fleet(self.server.url, NAMESPACE, folder, self.archives)
        self.client = SyncClient(self.server.url)
        settings = msgspec.structs.replace(
            settings_for(NAMESPACE), archive=ArchiveSettings(folder=self.archives)
        )
        self.bus = client_bus.Bus(settings, self.client, KEYS)

    def end(self) -> None:
        self.fleet.end()
        self.client.close()
        self.server.stop()

    def state(self) -> State:
        return rebuild.rebuild(self.client, KEYS, archives=self.archives)

    def whole(self, until: str = "+") -> State:
        """What archive and log say, and nothing that is kept beside them."""
        return rebuild.rebuild(
            self.client, KEYS, until=until, snapshot=False, archives=self.archives
        )

    def events(self) -> list[Any]:
        return [event for batch in self.bus.read() for event in batch]

    def submit_open(self) -> str:
        data = msgspec.json.encode({"text": OPEN, "worker": "nobody"})
        place: bytes = self.client.call(
            "XADD", KEYS.main_intake, "*", "type", "task.submitted", "data", data
        )
        return place.decode()

    def all_over(self, submitters: int) -> bool:
        """Whether all that was asked for is over, but the one that stays open."""
        try:
            state = self.state()
        except RedisUnavailable:
            return False
        acknowledged = self.fleet.acknowledged()
        asked = len(acknowledged["task"]) + len(acknowledged["poison"])
        waiting = [t for t in state.tasks.values() if t.worker or t.status in RUNNING]
        ended = state.meta.ended == len(acknowledged["task"])
        return asked == submitters * self.fleet.allowed and ended and not waiting


@pytest.fixture
def ground(tmp_path: Path) -> Generator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.end()


def worked(ground: Ground, tasks: int) -> tuple[str, list[str]]:
    """Work done on a bus whose log nobody cut yet: the open task's id, and every place."""
    archives, ground.fleet.archives = ground.fleet.archives, ""
    host = ground.fleet.host()
    open_task = ground.submit_open()
    worker, submitter = ground.fleet.worker("w1"), ground.fleet.submitter("s1")
    ground.fleet.allow(tasks)
    wait_blocking(lambda: ground.all_over(1), within=90, what=host.said())
    for process in (host, worker, submitter):
        process.kill9()
    ground.client.call("DEL", KEYS.services)  # as if the time of their heartbeats had passed
    ground.fleet.archives = archives
    return open_task, [event.log_id for event in ground.events()]


def test_killed_at_every_step_of_a_cut_it_is_gone_on_with(ground: Ground) -> None:
    """Given who cuts the log dies at each step in turn, then after each death archive and log say
    what they said before, and the next goes on; in the end nothing is left over."""
    open_task, places = worked(ground, 700)
    chosen = [*places[::400], places[-1]]
    digests = {place: ground.whole(place).digest() for place in chosen}
    for step in STEPS:
        if step == "snapshot.before_set":
            ground.client.call("DEL", KEYS.snapshot)
        process = ground.fleet.retention(die_at=step)
        wait_blocking(lambda p=process: p.code is not None, within=60, what=step)
        assert process.died_at_its_point, (step, process.code, process.said())
        assert ground.whole().digest() == digests[places[-1]], step
        assert ground.state().digest() == digests[places[-1]], step
        submitted = story(ground.bus, open_task)[0]
        assert text_of(submitted, "text") == OPEN, step
    last = ground.fleet.retention()
    wait_blocking(lambda: last.code is not None, within=120, what="it is cut")
    assert last.code == 0, last.said()
    assert {place: ground.whole(place).digest() for place in digests} == digests
    assert {place: ground.bus.state(place).digest() for place in digests} == digests
    assert [event.log_id for event in ground.events()] == places
    assert 1_000 <= ground.client.call("XLEN", KEYS.log) < 1_100
    mark = read_mark(ground.client, KEYS)
    assert mark is not None
    assert mark.swept == mark.cut == len(places) // 100 - 10
    Archive(ground.client, KEYS, ground.archives).verify()
    assert left_over(ground) == []
    indexes = {key.decode() for key in ground.client.call("KEYS", "*:task:*")}
    on_log = {getattr(e.data, "task", "") for e in ground.events()[mark.entries :]}
    assert indexes <= {KEYS.task_index(task) for task in on_log | {open_task}}


def test_a_new_archive_is_whole_whenever_its_writer_dies(ground: Ground) -> None:
    """`asb archive --anew` under kill -9: either the old files stand, or the new ones."""
    open_task, _ = worked(ground, 400)
    process = ground.fleet.retention()
    wait_blocking(lambda: process.code is not None, within=60, what="it is cut")
    digest = ground.whole().digest()
    for step in ("archive.anew", "archive.moved", "archive.exchanged"):
        renewing = ground.fleet.renewal(die_at=step)
        wait_blocking(lambda p=renewing: p.code is not None, within=60, what=step)
        assert renewing.died_at_its_point, (step, renewing.said())
        Archive(ground.client, KEYS, ground.archives).verify()
        assert ground.whole().digest() == digest, step
    last = ground.fleet.renewal()
    wait_blocking(lambda: last.code is not None, within=60, what="it is written anew")
    assert (last.code, left_over(ground)) == (0, []), last.said()
    assert ground.whole().digest() == digest
    assert text_of(story(ground.bus, open_task)[0], "text") == OPEN


def test_two_hosts_that_cut_a_log_under_load_lose_nothing(ground: Ground) -> None:
    """Two hosts with the archive service, workers and submitters; hosts, workers and Redis are
    killed at random while the log is cut again and again. All is done once, and the books of
    archive and log are those of every host."""
    chance = random.Random(11)
    hosts = [ground.fleet.host(), ground.fleet.host()]
    open_task = ground.submit_open()
    workers = [ground.fleet.worker(name) for name in ("w1", "w2")]
    for name in ("s1", "s2"):
        ground.fleet.submitter(name)
    for n in range(ROUNDS):
        ground.fleet.allow(TASKS)
        cut = entries_cut(ground)
        wait_blocking(lambda c=cut: entries_cut(ground) > c, within=90, what=said(hosts))
        killed = chance.randrange(3)
        if killed == 0 or n == 1:
            ground.server.restart()
        elif killed == 1:
            hosts[n % 2].kill9()
            hosts[n % 2] = ground.fleet.again(hosts[n % 2])
        else:
            workers[n % 2].kill9()
            workers[n % 2] = ground.fleet.again(workers[n % 2])
    wait_blocking(lambda: ground.all_over(2), within=120, what=said(hosts))
    a = audit(ground.events())
    assert a.wrong == []
    assert set(a.state.tasks) == {open_task}
    assert held(a.state) == {}
    assert all(a.ended[task] == 1 for task in a.submitted if task != open_task)
    assert ground.state().digest() == ground.whole().digest() == a.state.digest()
    for host in hosts:

        def same(host: Process = host) -> bool:
            word = ground.fleet.told_by(host)
            return word["log_id"] == a.state.meta.log_id and word["digest"] == a.state.digest()

        wait_blocking(same, within=20, what=host.said())
    conserved_over_http(ground.server.url, ground.bus.settings)
    assert text_of(story(ground.bus, open_task)[0], "text") == OPEN
    Archive(ground.client, KEYS, ground.archives).verify()


def left_over(ground: Ground) -> list[str]:
    """Files of somebody who died at it."""
    ends = (".part", ".new", ".old")
    return [path.name for path in ground.archives.rglob("*") if path.suffix in ends]


def entries_cut(ground: Ground) -> int:
    with contextlib.suppress(RedisUnavailable):
        mark = read_mark(ground.client, KEYS)
        return mark.entries if mark is not None else 0
    return 0


def said(processes: list[Process]) -> str:
    return "\n".join(f"{process.code} {process.said()}" for process in processes)
