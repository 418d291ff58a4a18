"""Ended tasks as they are kept in blocks, against a plain dict: whatever ends (again, too), is
undone, written and loaded, both say the same, and the bytes are those of one never loaded."""

from __future__ import annotations

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

KEPT, BLOCK = 7, 3
TASKS = [f"t{n}" for n in range(12)]
# A task that ends, and whether the turn it ends in is undone first; or what happens between two.
Act = tuple[str, str]
ENDS = st.tuples(st.sampled_from(["end", "undone"]), st.sampled_from(TASKS))
BETWEEN = st.tuples(st.sampled_from(["load", "look", "alike"]), st.sampled_from(TASKS))
ACTS = st.lists(ENDS | ENDS | BETWEEN, max_size=60)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OUTCOMES_KEPT", KEPT)
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

    def undone(self, task: str) -> None:
        """Two tasks end in a turn that looks at all and is undone; then ``task`` does, for good."""
        before = self.live.blocks()
        self.journal.begin()
        self.end("other")
        self.end(task)
        assert len(self.loaded) == len(self.live)
        self.journal.rollback()
        assert self.live.blocks() == before
        self.end(task)

    def note(self, task: str) -> None:
        n = self.meta.ended
        self.model.pop(task, None)
        self.model[task] = self.live[task]
        self.model = {t: o for t, o in self.model.items() if o.n > n - KEPT}

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
    """Every third task is like the others of its rest."""
    return bytes([TASKS.index(task) % 4]) if task in TASKS else b"other"


@examples(300)
@given(ACTS)
def test_blocks_say_what_a_dict_says(acts: list[Act]) -> None:
    ground = Ground()
    for word, task in acts:
        getattr(ground, word)(task)
        if word in ("end", "undone"):
            ground.note(task)
    assert ground.loaded.blocks() == ground.live.blocks()
    ground.load()
    assert len(ground.loaded) == len(ground.live) == len(ground.model)
    newest: list[Any] = list(reversed(ground.model.items()))
    assert list(ground.loaded.newest()) == newest == list(ground.live.newest())
    assert list(ground.loaded.items()) == list(ground.model.items())


def test_what_is_forgotten_is_not_there_while_other_blocks_are_unread() -> None:
    ground = Ground()
    for task in ("t0",) * 6 + ("t1",) + ("t0",) * 6:
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
    unread: dict[int, Any] = vars(ground.loaded)["_unread"]
    assert len(unread) == 2
    before = ground.live.blocks()
    assert ground.loaded.blocks() == before
    assert len(unread) == 2
