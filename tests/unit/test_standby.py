"""Who does the work where two hosts decide the same: judged by time that really passed."""

from __future__ import annotations

import pytest

from events.envelope import Event
from services.delegator.classify import Delegator
from services.delegator.decide import decider
from services.dispatcher import decide as dispatcher
from services.engine import standby
from services.engine.standby import STANDBY_S, Standby
from services.intake import decide as intake
from tests.examples import DAY, NOON, dispatched, submitted
from tests.given import wire

ENGINE = (intake.DECIDER, dispatcher.DECIDER)


class Moment:
    """Stands for ``elapsed``."""

    def __init__(self) -> None:
        self.at = 100.0

    def elapsed(self) -> float:
        return self.at


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    made = Moment()
    monkeypatch.setattr(standby, "elapsed", made.elapsed)
    return made


def decision(at: int = NOON, seq: int = 0, source: str = "dispatcher") -> Event:
    data = dispatched()
    return Event(data, at, f"{at // 1000}-{seq}", source, "", "d1", wire(data))


def test_another_one_that_decides_what_we_could_makes_us_the_standby(moment: Moment) -> None:
    host = Standby(ENGINE)
    host.saw(decision(source="throttle"))
    assert not host.on
    host.saw(decision())
    assert host.on
    moment.at += STANDBY_S / 2
    assert host.leaves(STANDBY_S / 2)
    host.kept()
    assert not host.on


def test_what_another_intake_took_in_makes_us_the_standby(moment: Moment) -> None:
    data = submitted()
    entry = Event(data, NOON, "1-0", "asb:intake", "asb:intake 1-0", "t1", wire(data))
    host, other = Standby(ENGINE), Standby((decider(Delegator()),))
    host.saw(entry)
    other.saw(entry)
    assert (host.on, other.on) == (True, False)


@pytest.mark.parametrize("off_by", [-DAY, 0, DAY])
def test_work_is_overdue_when_it_was_there_for_a_second_whatever_its_time_says(
    moment: Moment, off_by: int
) -> None:
    host = Standby(ENGINE)
    host.saw(decision(at=NOON + off_by))
    assert host.leaves(STANDBY_S + 1)  # the other one has just moved the log
    moment.at += STANDBY_S + 0.1
    assert not host.leaves(STANDBY_S + 0.1)
    assert not host.leaves(None)  # timers
    assert host.leaves(0.5)  # it has just come: the other one may be about to take it


def test_a_turn_of_our_own_whose_reply_was_lost_makes_nobody_the_standby(moment: Moment) -> None:
    host, mine = Standby(ENGINE), [decision(seq=0), decision(seq=1)]
    host.unsure(mine)
    host.unsure([decision(at=NOON + 5000)])  # it was decided again, and that reply was lost too
    for event in mine:
        host.saw(event)
    assert not host.on
    host.saw(decision(at=NOON + 7))  # the same decision at another microsecond is another host's
    assert host.on


def test_an_old_doubt_ends_with_the_next_turn_that_is_known_to_be_on_the_log(
    moment: Moment,
) -> None:
    host = Standby(ENGINE)
    host.unsure([decision()])
    host.kept()
    host.saw(decision())
    assert host.on
