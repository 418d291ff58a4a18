"""The small parts of a worker: figures read, texts clipped, pretended work reproduced."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.reports import clipped, completed
from services.worker.simulated import SimulatedDriver
from services.worker.supervised import Tail
from services.worker.task import Result, RetryableError, Task, Usage
from services.worker.usage import Told, told_by


def task(name: str = "t1", attempt: int = 1) -> Task:
    async def send(task: Task, document: object) -> None: ...

    fields = {b"task": name.encode(), b"attempt": b"%d" % attempt, b"session": b"1-1"}
    return Task(fields, worker="w1", send=send)


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ('{"input_tokens": 1, "output_tokens": 2}', Usage(1, 2)),
        ('{"usage": {"input_tokens": 1, "cache_read_tokens": 0}}', Usage(1, None, 0)),
        (
            '{"usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3,'
            ' "cache_creation_input_tokens": 4}, "total_cost_usd": 1}',
            Usage(1, 2, 3, 4),
        ),
        (
            '{"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 2}',
            Usage(6, 2, 4),
        ),
        (
            '{"usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,'
            ' "prompt_tokens_details": {"cached_tokens": 3}}}',
            Usage(7, 2, 3),
        ),
        ('{"prompt_tokens": 5.0, "completion_tokens": 0}', Usage(5, 0)),
        ('{"total_tokens": 12}', Usage(total_tokens=12)),
        ('{"prompt": 7, "completion": 8}', Usage(7, 8)),
        ('{"prompt": "the text", "output_tokens": 8}', Usage(None, 8)),
    ],
)
def test_usage_is_read_in_every_vendors_words(line: str, usage: Usage) -> None:
    assert told_by(b"some answer\n" + line.encode() + b"\n \n").usage == usage


@pytest.mark.parametrize(
    "line",
    [
        "",
        "plain text",
        "{not json}",
        '{"input_tokens": -1}',
        '{"input_tokens": "12"}',
        '{"input_tokens": true}',
        '{"input_tokens": 1.5}',
        '{"input_tokens": 1e300}',
        '{"answer": 42}',
        '{"usage": []}',
        '{"usage": null}',
        '["input_tokens"]',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"input_tokens": 1',
    ],
)
def test_a_line_that_tells_no_usage_is_just_output(line: str) -> None:
    assert told_by(b"x\n" + line.encode()) == Told()


def test_an_impossible_cost_is_left_out() -> None:
    for cost in ("-1", '"free"', "true", "1e999"):
        told = told_by(b'{"output_tokens": 1, "cost_usd": %s}' % cost.encode())
        assert told.cost_usd is None
    assert told_by(b'{"output_tokens": 1, "cost_usd": 0}').cost_usd == 0


@given(st.binary(max_size=300))
def test_any_output_can_be_read_for_usage(output: bytes) -> None:
    told_by(output)


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
def test_a_report_never_exceeds_what_the_desk_takes_whole(unit: str, left_out: int) -> None:
    data = completed(task(), Result(unit * 70_000 + "the end", left_out=left_out), 0)[1]
    assert len(data) <= 64 * 1024
    result = msgspec.json.decode(data)["result"]
    assert result.endswith("the end")
    assert result.startswith("[… the first ")


def test_what_the_desk_would_refuse_a_report_for_is_left_out_of_it() -> None:
    for cost in (-1.0, float("nan"), 1e12, "free"):
        assert b"cost_usd" not in completed(task(), Result("x", cost_usd=cost), 0)[1]
    assert b'"cost_usd":"0.10"' in completed(task(), Result("x", cost_usd="0.10"), 0)[1]
    for extra in ({"x": object()}, {"x": "y" * 20_000}, {"\ud800": 1}):
        said = msgspec.json.decode(completed(task(), Result("x", extra=extra), 0)[1])
        assert said["result"] == "x"


def test_usage_is_whole_tokens() -> None:
    for bad in (-1, 1.5, "1", True, 10**16):
        with pytest.raises(ValueError, match="whole number"):
            Usage(input_tokens=bad)  # type: ignore[arg-type]


def test_usage_adds_up_and_unknown_stays_unknown() -> None:
    assert Usage(1, None, 3).plus(Usage(2, None, None, 0)) == Usage(3, None, 3, 0)


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
