"""Ended tasks as they are kept in blocks, against a plain dict: whatever ends (again, too), is
undone, written and loaded, both say the same, and the bytes are those of one never loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections import outcomes as module
from projections.journal import Journal
from projections.outcomes import Outcomes
from projections.records import COMPLETED, FAILED, Meta, Outcome
from tests.strategies import examples

KEPT, BLOCK = 4, 2  # blocks beside the one that fills, and ends of each
TASKS = [f"t{n}" for n in range(12)]
# A task that ends: in a replay, or in a turn that stands or is undone first. What happens between.
Act = tuple[str, str]
ENDS = st.tuples(st.sampled_from(["end", "turn", "undone"]), st.sampled_from(TASKS))
BETWEEN = st.tuples(st.sampled_from(["load", "look", "alike", "charged"]), st.sampled_from(TASKS))
ACTS = st.lists(ENDS | ENDS | BETWEEN, max_size=60)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCKS_KEPT", KEPT)
        patch.setattr(module, "OUTCOMES_BLOCK", BLOCK)
        yield


class Ground:
    """Outcomes that are loaded now and then, beside some that never are, and a model of both."""

    def __init__(self) -> None:
        self.meta, self.journal = Meta(), Journal()
        self.loaded, self.live = Outcomes(self.meta), Outcomes(self.meta)
        self.model: dict[str, Outcome] = {}

    def end(self, task: str) -> None:
        self.journal.touch(self.meta)
        n = self.meta.ended = self.meta.ended + 1
        status = FAILED if n % 3 == 0 else COMPLETED
        for outcomes in (self.loaded, self.live):
            outcomes.end(self.journal, task, Outcome(n, status, 1, n, digest=digest_of(task)))

    def turn(self, task: str) -> None:
        self.journal.begin()
        self.end(task)
        self.journal.commit()

    def undone(self, task: str) -> None:
        """``task`` ends in a turn that looks at all and is undone; then it does for good."""
        before = self.live.blocks()
        self.journal.begin()
        self.end(task)
        for _ in range(2 * BLOCK):
            self.end("other")
        assert len(self.loaded) == len(self.live)
        self.journal.rollback()
        assert self.live.blocks() == before
        self.turn(task)

    def note(self, task: str) -> None:
        n = self.meta.ended
        self.model.pop(task, None)
        self.model[task] = copy.copy(self.live[task])
        oldest = ((n - 1) // BLOCK - KEPT) * BLOCK
        self.model = {t: o for t, o in self.model.items() if o.n > oldest}

    def charged(self, task: str) -> None:
        """A late charge that stands, on top of it one in a turn that is undone."""
        if task not in self.model:
            return
        self.model[task].tokens += 5
        for tokens, stands in ((5, True), (7, False)):
            self.journal.begin()
            for outcomes in (self.loaded, self.live):
                outcome = outcomes[task]
                self.journal.touch(outcome)
                outcome.tokens += tokens
            if stands:
                self.journal.commit()
                continue
            for _ in range(2 * BLOCK):
                self.end("other")
            self.journal.rollback()

    def load(self, _task: str = "") -> None:
        self.loaded = Outcomes(self.meta, self.loaded.blocks())

    def look(self, task: str) -> None:
        for outcomes in (self.loaded, self.live):
            assert outcomes.get(task) == self.model.get(task)
            assert (task in outcomes) == (task in self.model)

    def alike(self, task: str) -> None:
        digest = digest_of(task)
        known = [t for t, o in self.model.items() if (o.digest, o.status) == (digest, COMPLETED)]
        for outcomes in (self.loaded, self.live):
            assert outcomes.alike(self.journal, digest) == (known[-1] if known else None)


def digest_of(task: str) -> bytes:
    """Every fourth task is like another; one of none of ours is like nothing else."""
    return bytes([TASKS.index(task) % 4]) if task in TASKS else task.encode()


@examples(300)
@given(ACTS)
def test_blocks_say_what_a_dict_says(acts: list[Act]) -> None:
    ground = Ground()
    for word, task in acts:
        getattr(ground, word)(task)
        if word in ("end", "turn", "undone"):
            ground.note(task)
    assert ground.loaded.blocks() == ground.live.blocks()
    ground.load()
    assert len(ground.loaded) == len(ground.live) == len(ground.model)
    newest: list[Any] = list(reversed(ground.model.items()))
    assert list(ground.loaded.newest()) == newest == list(ground.live.newest())
    assert list(ground.loaded.items()) == list(ground.model.items())


def test_what_is_forgotten_is_not_there_while_other_blocks_are_packed() -> None:
    ground = Ground()
    for task in ("t0",) * 6 + ("t1",) + ("t0",) * 9:
        ground.end(task)
    ground.load()
    assert "t1" in ground.loaded
    ground.undone("t0")
    assert "t1" not in ground.loaded


def test_looking_at_the_newest_reads_no_more_than_their_block() -> None:
    """What makes reading fast: blocks that nobody asks for stay as bytes."""
    ground = Ground()
    for task in TASKS:
        ground.end(task)
    ground.load()
    reading = ground.loaded.newest()
    assert next(reading)[0] == TASKS[-1]
    packed: dict[int, Any] = vars(ground.loaded)["_packed"]
    assert len(packed) == KEPT
    assert ground.loaded.blocks() == ground.live.blocks()
    assert len(packed) == KEPT


def test_all_but_the_newest_are_bytes_again_when_some_were_looked_at() -> None:
    """What keeps a bus small that somebody looks at, or whose tasks are charged late."""
    ground = Ground()
    for task in TASKS * 2:
        ground.turn(task)
    assert len(list(ground.live.items())) == 2 * KEPT + BLOCK
    packed: dict[int, Any] = vars(ground.live)["_packed"]
    assert not packed
    for task in TASKS:
        ground.turn(task)
    assert len(packed) == KEPT - module.FRESH


@pytest.mark.parametrize("way", ["end", "turn"])
def test_nothing_stays_of_what_is_forgotten(way: str) -> None:
    ground = Ground()
    for n in range(20 * BLOCK):
        getattr(ground, way)(f"t{n}")
    for made in ("_known", "_order", "_packed", "_places"):
        assert len(vars(ground.live)[made] or ()) <= (KEPT + 1) * BLOCK


def test_what_is_forgotten_is_like_nothing_any_more() -> None:
    ground = Ground()
    ground.turn("t0")
    digest = digest_of("t0")
    assert ground.live.alike(ground.journal, digest) == "t0"
    for n in range((KEPT + 1) * BLOCK):
        ground.turn(f"new{n}")
    assert ground.live.alike(ground.journal, digest) is None
