"""The small parts of a worker: figures read, texts clipped, pretended work reproduced."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.tokens import read
from services.worker.drivers.simulated import SimulatedDriver
from services.worker.messages import clipped, completed
from services.worker.process.supervised import Tail
from services.worker.task import Result, RetryableError, Task, Usage


def task(name: str = "t1", attempt: int = 1) -> Task:
    async def send(task: Task, document: object) -> None: ...

    fields = {b"task": name.encode(), b"attempt": b"%d" % attempt, b"session": b"1-1"}
    return Task(fields, worker="w1", send=send)


@given(st.text(st.characters(codec=None), max_size=400), st.integers(100, 300))
def test_a_clipped_text_fits_and_can_be_written(text: str, limit: int) -> None:
    short = clipped(text, limit)
    assert len(short.encode()) <= limit
    whole = text.encode("utf-8", "replace")
    if len(whole) <= limit:
        assert short.encode() == whole
    else:
        mark, _, rest = short.partition("\n")
        assert mark.startswith("[… the first ")
        assert whole.endswith(rest.encode())


@given(st.lists(st.binary(max_size=70), max_size=40))
def test_a_tail_holds_the_end_in_bounded_memory(chunks: list[bytes]) -> None:
    tail = Tail(100)
    for chunk in chunks:
        tail.write(chunk)
    whole = b"".join(chunks)
    assert tail.bytes() == whole[-100:]
    assert tail.total == len(whole)
    assert tail.left_out == max(0, len(whole) - 100)


@given(st.text(st.characters(codec=None), min_size=1, max_size=3), st.integers(0, 9))
def test_a_report_never_exceeds_what_the_engine_takes_whole(unit: str, left_out: int) -> None:
    data = completed(task(), Result(unit * 70_000 + "the end", left_out=left_out), 0)[1]
    assert len(data) <= 64 * 1024
    result = msgspec.json.decode(data)["result"]
    assert result.endswith("the end")
    assert result.startswith("[… the first ")


def test_what_the_engine_would_refuse_a_report_for_is_left_out_of_it() -> None:
    for cost in (-1.0, float("nan"), 1e12, "free"):
        assert b"cost_usd" not in completed(task(), Result("x", cost_usd=cost), 0)[1]
    assert b'"cost_usd":"0.10"' in completed(task(), Result("x", cost_usd="0.10"), 0)[1]
    for extra in ({"x": object()}, {"x": "y" * 20_000}, {"\ud800": 1}):
        said = msgspec.json.decode(completed(task(), Result("x", extra=extra), 0)[1])
        assert said["result"] == "x"


class Own:
    """A number of another library."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return other == self.value

    def __hash__(self) -> int:
        return self.value


def reported(usage: object) -> Any:
    """The usage in the report of a result that tells ``usage``."""
    return msgspec.json.decode(completed(task(), Result("the work", usage=usage), 0)[1]).get(
        "usage"
    )


@pytest.mark.parametrize("value", [1000.0, Decimal(1000), Fraction(1000), Own(1000), "1,000"])
def test_whole_tokens_of_any_type_are_integers(value: Any) -> None:
    assert Usage(input_tokens=value) == Usage(1000)
    assert type(Usage(input_tokens=value).input_tokens) is int


@pytest.mark.parametrize(
    "value", [-1, 1.5, True, 10**16, 10**30, float("nan"), "many", "\ud800", []]
)
def test_a_figure_that_is_none_is_reported_as_it_is_and_the_work_with_it(value: Any) -> None:
    given = reported(Usage(input_tokens=value, output_tokens=5))
    assert given["output_tokens"] == 5
    verdict = read(given)
    assert verdict.usage is None
    assert "input_tokens" in verdict.flag


def test_a_vendors_own_object_is_usage_as_it_is() -> None:
    vendor = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
    for usage in (vendor, SimpleNamespace(**vendor), SimpleNamespace(model_dump=lambda: vendor)):
        assert reported(usage) == vendor
    assert reported({**vendor, "note": "x" * 9_000}) == {"input_tokens": 6, "cache_read_tokens": 4}
    assert read(reported(object())).flag
    assert "usage" not in completed(task(), Result("x", usage=None), 0)[1].decode()


def test_a_handler_that_returns_nothing_reports_no_result() -> None:
    assert "result" not in msgspec.json.decode(completed(task(), None, 0)[1])
    assert msgspec.json.decode(completed(task(), "", 0)[1])["result"] == ""


def test_usage_adds_up_and_unknown_stays_unknown() -> None:
    assert Usage(1, None, 3).plus(Usage(2, None, None, 0)) == Usage(3, None, 3, 0)
    unreadable: Any = "a lot"
    assert Usage(1).plus(Usage(unreadable)) == Usage(unreadable)


def test_a_handlers_figures_win_over_what_was_counted_on_the_way() -> None:
    one = task()
    one.usage(input_tokens=1)
    said = msgspec.json.decode(completed(one, Result("x", usage=Usage(input_tokens=2)), 0)[1])
    assert said["usage"] == {"input_tokens": 2}


@pytest.mark.anyio
async def test_pretended_work_is_the_same_each_time_and_says_what_it_is() -> None:
    driver = SimulatedDriver(speed=1000)
    seen: list[object] = []
    for _ in range(2):
        one = task("calm")
        result = await driver.run(one)
        assert result.text.startswith("simulated")
        seen.append((result.text, one.spent))
        assert msgspec.json.decode(completed(one, result, 0)[1])["evidence"] == "simulated"
    assert seen[0] == seen[1]


@pytest.mark.anyio
async def test_pretended_work_fails_one_time_in_twenty_and_another_attempt_may_succeed() -> None:
    driver = SimulatedDriver(speed=100_000)
    failed = 0
    for n in range(400):
        try:
            await driver.run(task(f"task-{n}"))
        except RetryableError:
            failed += 1
    assert 10 <= failed <= 30
