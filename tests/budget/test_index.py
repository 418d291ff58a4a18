"""Which test proves what: the budget tests T1 … T41 of the reference, each with its place.

A pointer that leads nowhere fails here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVED_BY = {
    "T1": "tests/budget/test_edge_race.py::test_the_last_of_a_budget_is_given_out_exactly_once",
    "T2": "tests/budget/test_gates.py::test_one_full_window_refuses_and_nothing_is_changed_by_it",
    "T3": "tests/budget/test_edge_race.py::"
    "test_many_first_asks_of_a_worker_never_seen_get_what_fits",
    "T4": "tests/properties/test_budget.py::"
    "test_every_number_and_every_dispatch_is_what_the_model_says",
    "T4, the audit": "tests/budget/test_audit.py::"
    "test_the_log_of_any_day_passes_and_adds_up_as_the_folds_do",
    "T5": "tests/budget/test_gates.py::test_the_gate_table",
    "T6": "tests/budget/test_gates.py::test_a_limit_of_zero_refuses_all_and_no_limit_refuses_none",
    "T7": "tests/budget/test_gates.py::test_at_soft_critical_tasks_pass_a_crowd_of_low_ones_"
    "which_resume_with_the_next_window",
    "T9": "tests/budget/test_gates.py::"
    "test_only_the_dispatcher_dispatches_and_only_after_the_check",
    "T10": "tests/budget/test_kills.py::test_an_engine_killed_at_a_point_leaves_no_hold_behind",
    "T11": "tests/budget/test_holds.py::test_every_end_of_an_attempt_ends_its_hold_once",
    "T12": "tests/budget/test_holds.py::test_of_a_hundred_ends_at_once_one_settles",
    "T13": "tests/budget/test_holds.py::"
    "test_three_times_the_hold_is_booked_in_full_and_stops_what_comes_next",
    "T14": "tests/budget/test_holds.py::"
    "test_usage_counts_in_the_hour_it_is_told_in_and_the_hold_in_the_present_one",
    "T16": "tests/budget/test_replay.py::test_batches_of_any_size_give_the_same_bytes",
    "T17": "tests/budget/test_replay.py::"
    "test_repeats_in_any_order_and_after_any_time_change_nothing",
    "T18": "tests/budget/test_replay.py::test_the_same_id_with_other_content_is_refused_and_kept",
    "T19": "tests/budget/test_time.py::"
    "test_a_late_fact_counts_in_the_report_of_its_day_and_in_the_present_window",
    "T20": "tests/budget/test_time.py::test_a_correction_goes_into_the_window_of_what_it_corrects",
    "T22": "tests/budget/test_replay.py::test_one_bad_fact_among_many_is_set_aside_with_its_reason",
    "T23": "tests/budget/test_replay.py::"
    "test_after_a_crash_nothing_is_admitted_before_the_log_is_folded",
    "T24": "tests/budget/test_time.py::test_a_clock_that_jumps_loses_no_use_and_ends_no_hold_twice",
    "T25": "tests/budget/test_time.py::test_every_window_is_where_a_calendar_says",
    "T26": "tests/budget/test_time.py::test_report_days_follow_the_zone_and_windows_do_not",
    "T27": "tests/budget/test_time.py::"
    "test_a_fixed_window_allows_twice_its_limit_across_its_edge_and_a_rolling_one_does_not",
    "T28": "tests/budget/test_time.py::"
    "test_a_thousand_boundaries_with_two_engines_erase_nothing_and_count_nothing_twice",
    "T29": "tests/budget/test_money.py::"
    "test_a_vendors_own_example_comes_to_disjoint_parts_and_an_exact_price",
    "T31": "tests/budget/test_money.py::"
    "test_a_counter_that_restarts_or_is_told_twice_never_counts_above_the_truth",
    "T32": "tests/budget/test_money.py::"
    "test_a_model_nobody_knows_is_held_at_the_dearest_price_and_settles_there_flagged",
    "T34": "tests/budget/test_money.py::test_what_was_booked_keeps_its_price_and_names_its_book",
    "T35": "tests/budget/test_replay.py::test_the_smallest_coin_adds_up_exactly",
    "T37": "tests/budget/test_alerts.py::"
    "test_two_hundred_crossings_at_once_by_rival_engines_say_it_once",
    "T38": "tests/budget/test_conservation.py::test_every_sum_is_the_same_after_every_round",
    "T41": "tests/budget/test_redis_away.py::"
    "test_nothing_is_admitted_without_redis_and_all_goes_on_afterwards",
}


@pytest.mark.parametrize("which", PROVED_BY)
def test_what_is_said_to_be_proved_is_proved_somewhere(which: str) -> None:
    file, _, name = PROVED_BY[which].partition("::")
    tree = ast.parse((ROOT / file).read_text())
    names = {
        n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in names
