"""How ``asb doctor`` runs its checks: one that fails is a row, and holds up no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from projections.state import State
from services.client.bus import Bus
from services.queries.doctor.findings import Check, Look, rows
from services.queries.doctor.services import GOES_WITHOUT
from services.queries.missing import EVERY, STANDS_STILL
from services.runtime.errors import LogError
from services.store.health import FactRow, ServerFacts


class Broken:
    """A bus whose log cannot be folded."""

    folded = 0

    def now(self) -> int:
        return 0

    def state(self) -> State:
        self.folded += 1
        raise LogError("cannot go on: entry 5-0", hint="upgrade this asb")


def _fine(_look: Look) -> Iterator[FactRow]:
    yield ("redis", "answers", "ok", "")


def _needs_state(look: Look) -> Iterator[FactRow]:
    yield ("tasks", str(len(look.state.tasks)), "ok", "")


def test_a_log_that_cannot_be_folded_is_one_bad_row_with_the_way_out() -> None:
    bus = Broken()
    look = Look(cast("Bus", bus), cast("ServerFacts", None))
    checks: list[tuple[str, Check]] = [
        ("log", _needs_state),
        ("tasks", _needs_state),
        ("redis", _fine),
    ]
    found = list(rows(look, checks))
    assert found == [
        ("log", "cannot go on: entry 5-0", "bad", "upgrade this asb"),
        ("redis", "answers", "ok", ""),
    ]
    assert bus.folded == 1


def test_doctor_has_words_for_every_part_of_a_service_that_nobody_runs() -> None:
    assert {*GOES_WITHOUT, *STANDS_STILL} == set(EVERY)
