"""The journal: each level stands or goes by itself."""

from __future__ import annotations

from projections.journal import Journal


def test_what_a_turn_counted_goes_with_it() -> None:
    journal, counts = Journal(), {1: 5}
    journal.count(counts, 1)  # replay: nothing is saved
    journal.begin()
    journal.count(counts, 1)
    journal.begin()
    for key in (1, 2, 2):
        journal.count(counts, key)
    assert counts == {1: 8, 2: 2}
    journal.rollback()
    assert counts == {1: 7}
    journal.rollback()
    assert counts == {1: 6}


def test_a_map_that_is_new_and_was_counted_in_goes_as_a_whole() -> None:
    journal, durations = Journal(), dict[str, dict[int, int]]()
    journal.begin()
    journal.put(durations, "task", counts := dict[int, int]())
    journal.count(counts, 3)
    journal.begin()
    journal.count(counts, 3)
    journal.rollback()
    assert durations == {"task": {3: 1}}
    journal.rollback()
    assert durations == {}
