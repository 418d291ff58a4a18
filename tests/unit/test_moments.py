"""Which moment of the log a text names."""

from __future__ import annotations

import pytest

from services.queries.moment import LAST, moment
from services.runtime.errors import Refused

NOW = 1_795_724_789_568_337  # 2026-11-26T20:26:29.568337Z


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-26T20:26", 1_795_724_760_000_000),
        ("2026-11-26 20:26:29", 1_795_724_789_000_000),
        ("2026-11-26T22:26:29+02:00", 1_795_724_789_000_000),
        ("20:26", 1_795_724_760_000_000),
        ("20:27", 1_795_724_820_000_000 - 86_400_000_000),  # not yet today: yesterday
        ("-15m", 1_795_724_789_000_000 - 900_000_000),
        ("-2d", 1_795_724_789_000_000 - 172_800_000_000),
    ],
)
def test_a_time_names_everything_up_to_it(text: str, at: int) -> None:
    chosen = moment(text, NOW)
    assert (chosen.now, chosen.until) == (at, f"{at // 1000}-{LAST}")


def test_an_id_names_itself_and_the_time_of_its_event() -> None:
    assert moment(" 1795724789568-3 ", NOW).until == "1795724789568-3"
    assert moment("1795724789568-3", NOW).now == 0


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "-5y", "2026-13-01", "-", "1-2-3"])
def test_what_names_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="names no moment"):
        moment(text, NOW)
