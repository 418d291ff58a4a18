"""The server's time, carried on between replies."""

from __future__ import annotations

import pytest

from services.runtime import clock
from services.runtime.clock import ServerClock

SECOND = 1_000_000
EPOCH = 1_700_000_000 * SECOND


class Moment:
    """Stands for ``elapsed``."""

    def __init__(self) -> None:
        self.at = 100.0

    def elapsed(self) -> float:
        return self.at


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    made = Moment()
    monkeypatch.setattr(clock, "elapsed", made.elapsed)
    return made


def hear(server: ServerClock, moment: Moment, after: float, read_at: float, took: float) -> None:
    """``after`` seconds pass, then a reply comes that took so long; the server read its clock at
    ``read_at`` seconds of its own time."""
    sent = moment.at + after
    moment.at = sent + took
    server.set(EPOCH + int(read_at * SECOND), sent)


def test_the_first_reply_sets_the_clock(moment: Moment) -> None:
    server = ServerClock()
    hear(server, moment, 0.0, 50.0, 0.002)
    assert abs(server.now() - (EPOCH + 50 * SECOND)) <= 1_000
    moment.at += 3
    assert abs(server.now() - (EPOCH + 53 * SECOND)) <= 1_001


def test_a_reply_that_took_seconds_does_not_move_a_clock_that_may_be_right(
    moment: Moment,
) -> None:
    server = ServerClock()
    hear(server, moment, 0.0, 50.0, 0.0)
    hear(server, moment, 1.0, 59.0, 8.0)  # the server stood still and read its clock at the end
    assert server.now() == EPOCH + 59 * SECOND
    hear(server, moment, 1.0, 60.0, 8.0)  # and once it read it at the beginning
    assert server.now() == EPOCH + 68 * SECOND


@pytest.mark.parametrize("step", [-7200.0, -3.0, 3.0, 7200.0])
def test_a_step_of_the_server_s_clock_is_followed(moment: Moment, step: float) -> None:
    server = ServerClock()
    hear(server, moment, 0.0, 50.0, 0.0)
    hear(server, moment, 1.0, 51.0 + step, 0.001)
    assert abs(server.now() - (EPOCH + int((51.0 + step) * SECOND))) <= 1_000
    by, noticed = server.step
    assert abs(by - int(step * SECOND)) <= 1_000
    assert abs(noticed - server.now()) <= 1_000


def test_steps_add_up_until_the_log_tells_of_them(moment: Moment) -> None:
    server = ServerClock()
    hear(server, moment, 0.0, 50.0, 0.0)
    assert server.step == (0, 0)
    hear(server, moment, 1.0, 51.0 + 100, 0.0)
    hear(server, moment, 1.0, 52.0 + 40, 0.0)
    assert server.step[0] == 40 * SECOND
    server.reported(40 * SECOND)
    assert server.step == (0, 0)
    hear(server, moment, 1.0, 53.0, 0.0)
    assert server.step[0] == -40 * SECOND
    assert server.latest == EPOCH + 151 * SECOND


def test_small_corrections_never_make_it_run_backwards(moment: Moment) -> None:
    server = ServerClock()
    hear(server, moment, 0.0, 50.0, 0.0)
    before = server.now()
    hear(server, moment, 0.0, 49.9, 0.0)
    assert server.now() == before
