"""How long the log stays in Redis: what leaves is in the archive, and nothing else changes."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import text_of
from events.keys import Keys
from projections.state import State
from services.archive.copying import Archive
from services.archive.retention import Retention
from services.client import bus as client_bus
from services.client import forgetting, traces
from services.client.follow import story
from services.queries.doctor import log as doctor_log
from services.queries.doctor.archive import archive_rows
from services.queries.doctor.findings import Look
from services.queries.moment import moment, state_at, step
from services.queries.verify import (
    BATCHES,
    Walk,
    archive_checks,
    check_folds,
    conserved,
    read_views,
)
from services.queries.watching import events_before, past, task_at
from services.runtime.errors import BeginningLost
from services.runtime.settings_around import ArchiveSettings
from services.store import rebuild, snapshot_record
from services.store.client import SyncClient
from services.store.health import read_facts
from services.store.history import History, folder_of, read_mark
from services.store.segments import ArchiveBroken
from tests.integration.test_engine_ground import Bus, Hands, caught_up, running, working
from tests.wait import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

POLICY = ArchiveSettings(keep_events=1_000, segment_events=300)
WORDY = msgspec.structs.replace(POLICY, words=True)
KEEP = [msgspec.structs.replace(POLICY, keep_events=n) for n in (1_600, 1_200, 600)]
LOTS = 5
OPEN = "Ask Mrs. Abernathy, born 1961, about her loan"


class Ground:
    """A bus with some hundred tasks that are over, one open from the first minute, and a paused
    worker; and how those see it who only ask."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        bus.settings = msgspec.structs.replace(bus.settings, data_dir=folder)
        self.bus, self.keys, self.folder = bus, bus.keys, folder_of(bus.settings)
        self.client = SyncClient(bus.url)
        self.asked = client_bus.Bus(bus.settings, self.client, bus.keys)
        self.open = self.first = ""
        self.ended: list[str] = []

    async def fill(self, count: int = 500) -> Ground:
        self.open = await self.bus.submit(OPEN, worker="away")
        paused = await Hands(self.bus, "resting").join()
        await self.bus.tell("worker.paused", worker="resting")
        assert paused.session
        host = self.bus.host()
        async with running(host), working(self.bus, "w1"):
            for _ in range(LOTS):
                self.ended += await self.bus.submit_many(count // LOTS)
                last = self.ended[-1]
                await wait_until(lambda last=last: last in host.state.outcomes, within=20)
            await wait_until(lambda: len(host.state.outcomes) == count, within=20)
            await caught_up(self.bus, host)
        self.first = self.asked.history.first()
        return self

    def retain(self, policy: ArchiveSettings = POLICY) -> int:
        return Retention(self.client, self.keys, self.folder, policy).run()

    def whole(self, until: str = "+") -> State:
        """The state as archive and log say, and nothing that is kept."""
        return rebuild.rebuild(
            self.client, self.keys, until=until, snapshot=False, archives=self.folder
        )

    def length(self) -> int:
        return self.client.call("XLEN", self.keys.log)

    def archive(self) -> Archive:
        return Archive(self.client, self.keys, self.folder)

    def indexes(self) -> set[str]:
        prefix = self.keys.task_index_prefix
        there = self.client.scan(f"{prefix.replace('{', '?').replace('}', '?')}*")
        return {key.decode().removeprefix(prefix) for key in there}

    def events(self, kind: str) -> list[Any]:
        return [e for batch in self.asked.read() for e in batch if e.type == kind]


@pytest.fixture
async def ground(bus: Bus, tmp_path: Path) -> AsyncGenerator[Ground]:
    made = Ground(bus, tmp_path)
    await made.fill()
    yield made
    made.client.close()


async def test_what_left_is_archived_and_every_state_is_as_before(ground: Ground) -> None:
    """Given a log longer than its policy, then it is cut, and now and at past moments the state is
    to the byte what it was; nothing is kept of tasks that are over but what the archive has."""
    places = [e.log_id for batch in ground.asked.read() for e in batch]
    moments = places[50::317]
    before = {place: ground.whole(place).digest() for place in [*moments, places[-1]]}
    cut = ground.retain()
    assert cut >= 300
    assert ground.length() == len(places) - cut < 1_000 + 300
    assert ground.retain() == 0
    assert {place: ground.whole(place).digest() for place in before} == before
    assert {place: ground.asked.state(place).digest() for place in before} == before
    assert [e.log_id for batch in ground.asked.read() for e in batch] == places
    assert ground.asked.history.first() == ground.first
    mark = read_mark(ground.client, ground.keys)
    assert mark is not None
    assert (mark.cut, mark.swept, mark.entries) == (cut // 300, cut // 300, cut)
    kept = ground.indexes()
    assert ground.open in kept
    gone = [task for task in ground.ended if task not in kept]
    assert len(gone) > 20
    assert {row.log_id for row in events_before(ground.asked, places[60])} == set(places[:61])
    assert step(ground.asked, places[60], -1) == places[59]
    assert step(ground.asked, places[cut - 1], 1) == places[cut]


async def test_who_reads_while_the_log_is_cut_gets_every_entry_once(ground: Ground) -> None:
    """Nothing was read yet, one batch, two; what is cut then lies behind the reader and before."""
    places = [e.log_id for batch in ground.asked.read() for e in batch]
    for batches in range(3):
        reading = History(ground.client, ground.keys, ground.folder).entries()
        seen = [entry for _ in range(batches) for entry in next(reading)]
        assert ground.retain(KEEP[batches]) >= 300
        seen += [entry for batch in reading for entry in batch]
        assert [entry[0].decode() for entry in seen] == places


async def test_tasks_moments_and_proofs_read_the_archive(ground: Ground) -> None:
    """A task that is over has its story without its words, a past moment its fleet; the audit and
    the sums read archive and log as one."""
    told = {task: [e.type for e in story(ground.asked, task)] for task in ground.ended}
    assert ground.retain() > 0
    gone = next(task for task in ground.ended if task not in ground.indexes())
    assert [e.type for e in story(ground.asked, gone)] == told[gone]
    page = task_at(ground.asked, gone)
    assert page.status == "completed"
    submitted = story(ground.asked, gone)[0]
    assert text_of(submitted, "text") == "forgotten"
    early = [e.log_id for batch in ground.asked.read() for e in batch][40]
    scene = past(ground.asked, moment(early, ground.asked.now()))
    assert scene.overview.as_of == early
    assert state_at(ground.asked, moment(early, ground.asked.now()))[0].meta.log_id == early
    views, until = read_views(ground.asked), ground.asked.last_id()
    live = ground.asked.state(until)
    ground.asked.check_beginning("it cannot be folded")
    checks = [check_folds(ground.asked, until, size, live, lambda _: None) for size in BATCHES]
    checks += Walk(ground.asked, views).run(until, lambda _: None)
    checks += archive_checks(ground.asked)
    assert [check for check in checks if not check.good] == []
    assert [check for check in checks if check.name == "archive"]
    assert [row for row in conserved(ground.asked) if not row.good] == []


async def test_an_open_task_keeps_its_words_and_is_done_on_them(ground: Ground) -> None:
    """Given a task from the first minute, whose submission left Redis, then a host that starts anew
    and a worker that comes at last do it on its own words; after that nothing is carried."""
    assert ground.retain() > 0
    assert ground.client.call("XLEN", ground.keys.carried) >= 1
    [submitted, *_] = story(ground.asked, ground.open)
    assert text_of(submitted, "text") == OPEN
    host = ground.bus.host()
    async with running(host):
        hands = await Hands(ground.bus, "away").join()
        entry = await hands.takes()
        assert entry["text"] == OPEN
        await hands.does(entry)
        await ground.bus.submit_many(400, worker="nobody")
        await wait_until(lambda: ground.open in host.state.outcomes, within=10)
        await wait_until(lambda: len(host.state.tasks) == 400, within=10)
    assert ground.retain() > 0
    carried = ground.client.call("XRANGE", ground.keys.carried, "-", "+")
    assert [e for e in carried if OPEN.encode() in b" ".join(e[1])] == []


async def test_a_living_host_notes_nothing_and_one_that_slept_folds_again(ground: Ground) -> None:
    """A cut of ours is no loss: nobody says so, and nobody counts it as a log that went back."""
    awake, asleep = ground.bus.host(), ground.bus.host("usage")
    asleep.begin()
    async with running(awake), working(ground.bus, "w2"):
        more = await ground.bus.submit_many(200)
        await ground.bus.ended(*more, within=30)
        await caught_up(ground.bus, awake)
        snapshot_record.keep(ground.client, ground.keys)
        assert ground.retain() > 0
        last = await ground.bus.submit_many(20)
        await wait_until(lambda: all(t in awake.state.outcomes for t in last), within=20)
    async with running(asleep):
        await caught_up(ground.bus, asleep)
    assert asleep.state.digest() == ground.whole().digest()
    assert ground.events("log.trimmed") == ground.events("log.went_back") == []
    look = Look(ground.asked, await read_facts(ground.bus.client))
    rows = [*doctor_log.beginning(look), *doctor_log.entries(look), *archive_rows(ground.asked)]
    assert [row for row in rows if row[2] != "ok"] == []


async def test_the_log_is_cut_behind_nobody_who_still_reads_it(ground: Ground) -> None:
    """Given a process whose heartbeat says that it stands early on the log, then what it has not
    read stays; once it is gone, it leaves."""
    early = [e.log_id for batch in ground.asked.read() for e in batch][310]
    key = ground.keys.service("usage", "slow")
    ground.client.call("HSET", key, "log_id", early)
    ground.client.call("EXPIRE", key, 10)
    ground.client.call("HSET", ground.keys.services, "usage:slow", 1)
    assert ground.retain() == 300
    ground.client.call("DEL", key)
    assert ground.retain() >= 300


async def test_a_flipped_byte_is_named_by_whoever_folds_the_archive(ground: Ground) -> None:
    assert ground.retain() > 0
    archive = ground.archive()
    path = archive.folder / "000001.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    for read in (ground.whole, archive.verify, lambda: list(ground.asked.read())):
        with pytest.raises(ArchiveBroken, match=r"segment 1 .* was changed"):
            read()
    assert ground.asked.state().meta.events  # from the snapshot the bus goes on


async def test_without_archive_and_snapshot_it_is_refused_and_the_archive_is_named(
    ground: Ground, tmp_path: Path
) -> None:
    """Another host needs the snapshot alone; without it the archive's place is said. A hand that
    cuts further than the archive reaches is a loss as ever."""
    assert ground.retain() > 0
    elsewhere = tmp_path / "elsewhere"
    assert rebuild.rebuild(ground.client, ground.keys, archives=elsewhere).meta.events
    ground.client.call("DEL", ground.keys.snapshot, ground.keys.checkpoints)
    with pytest.raises(BeginningLost, match="in its archive, which is not on this host: ") as no:
        rebuild.rebuild(ground.client, ground.keys, archives=elsewhere)
    assert str(ground.folder) in str(no.value)
    assert ground.asked.state().digest() == ground.whole().digest()
    ground.client.call("XTRIM", ground.keys.log, "MAXLEN", 3)
    with pytest.raises(BeginningLost, match="lost its beginning"):
        ground.asked.state()


@pytest.mark.parametrize("policy", [POLICY, WORDY])
async def test_what_is_forgotten_leaves_the_archive_and_what_is_carried(
    ground: Ground, policy: ArchiveSettings
) -> None:
    """Given words that left Redis for the archive (where that is told to keep them), and those that
    are carried for an open task, then forgetting reaches both; the archive still stands."""
    assert ground.retain(policy) > 0
    words = {task: said(ground, task) for task in (ground.ended[0], ground.open)}
    assert (words[ground.ended[0]] != "forgotten") == policy.words
    digest = ground.whole().digest()
    host = ground.bus.host()
    async with running(host):
        since = ground.asked.last_id()
        forgetting.request(ground.asked, words)
        await wait_until(lambda: host.state.meta.words_removed, within=20)
        assert host.state.meta.words_removed == host.state.meta.forgotten_id
    assert ground.whole(since).digest() == digest
    ground.retain(policy)
    assert {said(ground, task) for task in words} == {"forgotten"}
    assert traces.search(ground.asked, traces.pieces_of([OPEN])).places == []
    stored = b"".join(gzip.decompress(p.read_bytes()) for p in ground.archive().folder.glob("*.gz"))
    assert OPEN.encode() not in stored
    assert (rb"\"words\":" in stored) == policy.words  # those of others stay, where they are kept
    ground.archive().verify()
    assert ground.whole(since).digest() == digest


def said(ground: Ground, task: str) -> str:
    """The prompt of a task, as it can be shown."""
    return text_of(story(ground.asked, task)[0], "text")


async def test_entries_that_are_too_old_leave_once_a_day(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given entries older than the policy has it, by ids of the log, then they leave though the log
    is short; what is younger than a day more waits."""
    policy = ArchiveSettings(keep_events=100_000, segment_events=100_000, keep_days=3)
    assert ground.retain(policy) == 0
    last = int(ground.asked.last_id().partition("-")[0])

    def later(_client: SyncClient, _days: int) -> int:
        return last + 86_400_000 + 1

    monkeypatch.setattr("services.archive.retention.too_old", later)
    length = ground.length()
    assert ground.retain(policy) == length - 1_000
    assert ground.retain(policy) == 0


@pytest.fixture
def opened(redis_url: str) -> Generator[SyncClient]:
    with contextlib.closing(SyncClient(redis_url)) as client:
        yield client


def test_a_history_without_an_archive_is_the_log(opened: SyncClient, keys: Keys) -> None:
    history = History(opened, keys)
    assert list(history.entries()) == [[]] or list(history.entries()) == []
    assert (history.first(), history.of_task("t"), history.at(["1-0"])) == ("", [], {})
