"""Checkpoints: any moment of the log from near, the same as from its start, within bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pytest

from events.keys import Keys
from projections.state import State
from services.runtime import initial_policy
from services.runtime.settings import load
from services.store import checkpoints, rebuild
from services.store.client import SyncClient
from tests.bench.history import History

EVENTS, EVERY = 6_000, 1_000


@pytest.fixture
def sync(redis_url: str) -> Generator[SyncClient]:
    with contextlib.closing(SyncClient(redis_url)) as client:
        yield client


@pytest.fixture
def log(sync: SyncClient, keys: Keys) -> Keys:
    History(sync, keys, EVENTS, initial_policy.policy(load({}))).grow(EVENTS)
    rebuild.write_snapshot(sync, keys, EVERY)
    return keys


def at(sync: SyncClient, keys: Keys, until: str) -> tuple[State, int]:
    """The state at ``until``, and how many events were folded for it."""
    folded: list[int] = []
    state = rebuild.rebuild(sync, keys, until=until, progress=folded.append)
    return state, sum(folded)


def ids(sync: SyncClient, keys: Keys) -> list[str]:
    return [entry[0].decode() for entry in sync.call("XRANGE", keys.log, "-", "+")]


def test_any_moment_is_near_a_checkpoint_and_equals_the_fold(sync: SyncClient, log: Keys) -> None:
    every = ids(sync, log)
    for until in (every[0], every[EVERY + 7], every[2 * EVERY + 500], every[-2], every[-1]):
        state, folded = at(sync, log, until)
        assert folded <= 2 * EVERY
        assert state.meta.log_id == until
        whole = rebuild.rebuild(sync, log, until=until, snapshot=False)
        assert state.digest() == whole.digest()


def test_what_cannot_be_used_is_passed_over(sync: SyncClient, log: Keys) -> None:
    newest = checkpoints.places(sync, log)[-1]
    until = ids(sync, log)[newest.events + 3]
    whole = rebuild.rebuild(sync, log, until=until, snapshot=False).digest()
    # Another event has its id, as on a log that went back and on again.
    sync.call("HSET", log.checkpoints, f"{newest.events} {until}", b"\x93")
    assert at(sync, log, until)[0].digest() == whole
    sync.call("DEL", log.checkpoint_blocks)  # the blocks of ended tasks are gone
    assert at(sync, log, until)[0].digest() == whole
    sync.call("DEL", log.checkpoints)
    sync.call("SET", log.checkpoints, "somebody's")
    assert at(sync, log, until)[0].digest() == whole


def test_they_keep_their_bounds_and_lie_evenly(sync: SyncClient, log: Keys) -> None:
    before = checkpoints.places(sync, log)
    assert len(before) >= 5
    checkpoints.thin(sync, log, number_max=3)
    kept = checkpoints.places(sync, log)
    assert len(kept) == 3
    assert kept[-1] == before[-1]
    gaps = [
        b.events - a.events
        for a, b in zip([checkpoints.Checkpoint(0, ""), *kept], kept, strict=False)
    ]
    assert max(gaps) <= 2 * min(gaps) + EVERY
    until = ids(sync, log)[kept[0].events + 5]
    whole = rebuild.rebuild(sync, log, until=until, snapshot=False)
    assert at(sync, log, until)[0].digest() == whole.digest()
    checkpoints.thin(sync, log, bytes_max=0)
    assert checkpoints.places(sync, log) == []
    assert sync.call("HLEN", log.checkpoint_blocks) == 0
