"""What users teach the delegator: an overlay on the bus, the same on every host; its seams."""

from __future__ import annotations

from typing import Any

import pytest

from events.routing import DelegatorLearnt, Example
from events.task import KINDS, TaskDelegated
from projections.state import decode_state
from services.decider import Inputs
from services.delegator.classify import Delegator
from services.delegator.decide import decider
from services.delegator.overlay import teach
from services.delegator.weights import unpack
from services.intake import decide as intake
from tests.examples import submitted
from tests.given import Given, given, intake_entry

TEXT = "Polish the wombat ledger"
SWEEP = [("database", TEXT), ("database", "Polish the wombat index")]


def learnt_entry(data: dict[str, Any], intake: str = "asb:intake") -> Inputs:
    return Inputs(entries=[intake_entry("delegator.learnt", "1-1", data, intake=intake)])


def routed(taught: Given, text: str) -> TaskDelegated:
    """What a host with a delegator of its own decides on this state."""
    case = given()
    case.state, case.overlay = taught.state, taught.overlay
    case.given(submitted(text=text))
    case.when(decider(Delegator()).decide, Inputs(texts={submitted().task: text}))
    return case.decided[0]


def test_examples_change_what_a_text_reads_as_and_little_else() -> None:
    assert Delegator().delegate(TEXT).kind != "database"
    taught = teach(SWEEP, {})
    assert taught.before < taught.after == 2
    assert taught.missed == []
    assert Delegator(overlay=taught.overlay).delegate(TEXT).kind == "database"
    assert taught.moved * 50 <= taught.judged
    assert teach(SWEEP, {}).overlay == taught.overlay


def test_without_examples_nothing_is_added() -> None:
    taught = teach([], {"wombat": "e+90"})
    assert taught.overlay == {}


def test_every_host_routes_by_the_overlay_on_the_log() -> None:
    overlay = teach(SWEEP, {}).overlay
    case = given(DelegatorLearnt(overlay, rows=2, examples=(Example("database"),), texts=(TEXT,)))
    assert routed(case, TEXT).kind == "database"
    again = decode_state(case.state.encode())
    assert again is not None
    assert again.meta.overlay == case.state.meta.overlay
    assert TEXT.encode() not in case.state.encode()
    assert not any(feature.encode() in case.state.encode() for feature in overlay)
    assert routed(given(), TEXT).kind != "database"


def test_the_overlay_in_force_is_the_last_one() -> None:
    case = given(DelegatorLearnt({"wombat": "e+500"}), DelegatorLearnt({"wombat": "a+500"}))
    assert routed(case, TEXT).kind == "ui"


def test_a_turn_that_did_not_reach_the_log_teaches_nothing() -> None:
    case = given(DelegatorLearnt({"wombat": "e+500"}, examples=(Example("ui"),), texts=("one",)))
    before = case.state.encode()
    case.state.begin()
    case.given(DelegatorLearnt({}, forgotten=tuple(case.state.taught)))
    assert case.state.encode() != before
    case.state.rollback()
    assert case.state.encode() == before


def test_an_example_whose_words_are_gone_is_counted_no_more() -> None:
    case = given(DelegatorLearnt({}, examples=(Example("ui"), Example("api"))))
    first, second = case.state.taught
    case.given(DelegatorLearnt({}, forgotten=(first,)))
    assert list(case.state.taught) == [second]


def test_a_correction_names_its_task_and_the_last_one_counts() -> None:
    case = given(
        DelegatorLearnt({}, examples=(Example("ui", task="t1"),)),
        DelegatorLearnt({}, examples=(Example("api", task="t1"),)),
    )
    assert [(e.kind, e.task) for e in case.state.taught.values()] == [("api", "t1")]


def test_what_is_sent_stands_on_the_log() -> None:
    data = {"overlay": {"wombat": "e+50a-3"}, "rows": 1, "examples": [{"kind": "ui", "text": "x"}]}
    case = given().when(intake.decide, learnt_entry(data))
    assert case.errors == []
    assert case.overlay == (case.state.meta.log_id, {"wombat": "e+50a-3"})
    assert case.state.meta.overlay.place == case.state.meta.log_id


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"overlay": {"wombat": "z+1"}}, "not points by kind"),
        ({"overlay": {"wombat": ""}}, "not points by kind"),
        ({"overlay": {"": "a+1"}}, "not points by kind"),
        ({"overlay": {"a\tb" * 200: "a+1"}}, "not points by kind"),
        ({"examples": [{"kind": "cooking", "text": "soup"}]}, "cooking"),
        ({"examples": [{"kind": "ui"}]}, "either a text or a task"),
        ({"examples": [{"kind": "ui", "text": "x", "task": "t1"}]}, "either a text or a task"),
        ({"after": "5-5"}, "do it again"),
    ],
)
def test_what_teaches_nothing_good_is_refused(data: dict[str, Any], complaint: str) -> None:
    case = given().when(intake.decide, learnt_entry(data))
    assert len(case.errors) == 1
    assert complaint in case.errors[0]
    assert case.overlay == ("", {})


def test_two_who_teach_at_once_lose_nothing() -> None:
    case = given().when(intake.decide, learnt_entry({"overlay": {"wombat": "e+50"}}))
    case.when(intake.decide, learnt_entry({"overlay": {"ledger": "a+50"}}))
    assert "somebody else" in case.errors[0]
    assert case.overlay[1] == {"wombat": "e+50"}


def test_an_agent_with_a_stream_of_its_own_teaches_nothing() -> None:
    case = given().when(intake.decide, learnt_entry({}, intake="asb:intake:eve"))
    assert "shared intake only" in case.errors[0]


# -- close calls -----------------------------------------------------------------------------------

RESEARCH, ANALYSIS = KINDS.index("research"), KINDS.index("analysis")
EVERY_TEXT = unpack(Delegator().bias)
# Whatever every text begins with, "wombat" leaves analysis five points before research.
LEAD = 305 + EVERY_TEXT[RESEARCH] - EVERY_TEXT[ANALYSIS]
CLOSE = {"wombat": f"f+300g+{LEAD}"}


@pytest.mark.parametrize(
    ("when_unsure", "kind", "model"),
    [
        ("likelier", "analysis", "sonnet"),
        ("cheap", "research", "haiku"),
        ("capable", "analysis", "sonnet"),
    ],
)
def test_a_close_call_is_said_and_decided_as_the_settings_say(
    when_unsure: str, kind: str, model: str
) -> None:
    chosen = Delegator(overlay=CLOSE, when_unsure=when_unsure).delegate("wombat")
    assert (chosen.kind, chosen.model) == (kind, model)
    assert chosen.close
    assert "close" in chosen.reason
    assert chosen.candidates[0].kind == kind


def test_a_clear_call_stays_what_it_is() -> None:
    clear = {"wombat": f"f+300g+{LEAD + 90}"}
    for when_unsure in ("likelier", "cheap", "capable"):
        chosen = Delegator(overlay=clear, when_unsure=when_unsure).delegate("wombat")
        assert (chosen.kind, chosen.close) == ("analysis", False)
        assert chosen.margin >= 60


def test_what_nobody_knows_the_price_of_is_not_compared() -> None:
    unsure = Delegator(overlay=CLOSE, when_unsure="cheap")
    assert unsure.delegate("wombat", dearness=lambda _: None).kind == "analysis"


def test_an_unknown_way_to_be_unsure_is_named() -> None:
    with pytest.raises(ValueError, match="coin"):
        Delegator(when_unsure="coin")


def test_the_event_says_how_sure_it_is() -> None:
    case = given(DelegatorLearnt(CLOSE))
    delegated = routed(case, "wombat")
    assert delegated.close
    assert 0 <= delegated.margin < 20
