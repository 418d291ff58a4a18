"""What a command's output, its usage file and its arguments come to."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.tokens import TokenParts
from services.runtime.errors import ConfigError
from services.worker.drivers.arguments import check, filled
from services.worker.drivers.command import CommandDriver
from services.worker.drivers.formats import Text, output
from services.worker.task import PermanentError, Task
from services.worker.usage import LEFT_S, READ_BYTES, UsageFile, last_usage

USED = {"input_tokens": 900, "output_tokens": 70}


def said(form: str, text: str | bytes, piece: int = 7) -> Text:
    """Output that came in pieces."""
    data = text.encode() if isinstance(text, str) else text
    found = output(form)
    for start in range(0, len(data), piece):
        found.write(data[start : start + piece])
    found.close()
    return found


def lines(*entries: Any) -> str:
    return "\n".join(json.dumps(entry) for entry in entries) + "\n"


# -- formats -----------------------------------------------------------------------------------


def test_text_is_never_usage() -> None:
    found = said("text", f"the answer\n{json.dumps({'usage': USED})}\n")
    assert not found.report.reading.says_something
    assert found.answer()[0].startswith("the answer\n")


def test_one_object_is_read_however_it_is_laid_out() -> None:
    for indent in (None, 2):
        text = json.dumps({"response": "4", "usage": USED, "model": "m"}, indent=indent)
        found = said("json", f"\n{text}\n")
        assert found.report.reading.usage == TokenParts(900, 70)
        assert (found.answer(), found.report.model, found.unreadable) == (("4", 0), "m", False)


def test_figures_by_model_and_the_agents_own_cost_are_read() -> None:
    found = said(
        "json",
        json.dumps(
            {
                "type": "result",
                "result": "Done.",
                "total_cost_usd": 0.06,
                "usage": {"input_tokens": 700, "output_tokens": 300},
                "modelUsage": {
                    "sonnet": {"inputTokens": 700, "outputTokens": 300, "costUSD": 0.02},
                    "haiku": {"inputTokens": 41_000, "outputTokens": 900, "costUSD": 0.04},
                },
            }
        ),
    )
    assert found.report.reading.usage == TokenParts(41_700, 1_200)
    assert (found.report.cost_usd, found.answer()[0]) == (0.06, "Done.")


def test_output_that_is_not_one_object_is_no_usage_and_stays_the_answer() -> None:
    for text in ("hello", lines({"usage": USED}) + "an update is there\n", "[1]", ""):
        found = said("json", text)
        assert not found.report.reading.says_something
        assert found.unreadable
        assert found.answer()[0] == text


def test_an_answer_longer_than_what_is_kept_loses_no_usage() -> None:
    text = "word " * 50_000  # 250 kB, four times what the raw output keeps
    for form in ("json", "jsonl"):
        found = said(form, lines({"usage": USED, "result": text}), piece=65_536)
        assert found.report.reading.usage == TokenParts(900, 70)
        assert found.answer() == (text, 0)


def test_the_last_object_with_usage_counts_whatever_comes_after_it() -> None:
    noise = "\x1b]0;title\x07\nnew version available\n{torn"
    first = {"usage": {"input_tokens": 1}}
    found = said("jsonl", lines(first, {"usage": USED, "text": "hi"}, {"type": "bye"}) + noise)
    assert found.report.reading.usage == TokenParts(900, 70)
    assert (found.answer()[0], found.unreadable) == ("hi", False)
    assert said("jsonl", "hello\n").unreadable


def test_the_answers_of_three_agents_are_their_texts() -> None:
    codex = lines(
        {"type": "item.completed", "item": {"type": "command_execution", "text": "no"}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "Said hi."}},
        {"type": "turn.completed", "usage": {**USED, "cached_input_tokens": 400}},
    )
    gemini = lines(
        {"type": "message", "role": "user", "content": "list"},
        {"type": "message", "role": "assistant", "content": "I look.", "delta": True},
        {"type": "tool_result", "status": "success", "output": "Directory is empty."},
        {"type": "message", "role": "assistant", "content": "Noth", "delta": True},
        {"type": "message", "role": "assistant", "content": "ing.", "delta": True},
        {"type": "result", "status": "success", "stats": {**USED, "total_tokens": 970}},
    )
    claude = lines(
        {"type": "system", "subtype": "init", "model": "m"},
        {"type": "assistant", "message": {"usage": {"output_tokens": 1}, "content": []}},
        {"type": "result", "is_error": False, "result": "Made it.", "usage": USED},
    )
    found = [said("jsonl", text) for text in (codex, gemini, claude)]
    assert [one.answer()[0] for one in found] == ["Said hi.", "Nothing.", "Made it."]
    usages = [one.report.reading.usage for one in found]
    assert usages == [TokenParts(500, 70, 400), TokenParts(900, 70), TokenParts(900, 70)]
    assert not any(one.failed for one in found)


@pytest.mark.parametrize(
    ("entries", "error", "failed"),
    [
        (
            [{"type": "result", "is_error": True, "result": "429, resets 7pm"}],
            "429, resets 7pm",
            True,
        ),
        ([{"is_error": True, "errors": ["Reached max turns"]}], "Reached max turns", True),
        ([{"type": "turn.failed", "error": {"message": "no key"}}], "no key", True),
        (
            [{"type": "error", "message": "Reconnecting"}, {"type": "turn.completed"}],
            "Reconnecting",
            False,
        ),
        ([{"type": "result", "status": "error", "error": {"message": "quota"}}], "quota", True),
        ([{"error": "out of credit"}], "out of credit", False),
        ([{"type": "item.completed", "item": {"type": "error", "message": "x"}}], "", False),
        ([{"result": "fine", "is_error": False, "error": None}], "", False),
    ],
)
def test_a_failure_is_told_in_the_formats_own_words(
    entries: list[dict[str, Any]], error: str, failed: bool
) -> None:
    found = said("jsonl", lines(*entries))
    assert (found.error, found.failed) == (error, failed)


@given(st.binary(max_size=400), st.sampled_from(("text", "json", "jsonl")), st.integers(1, 50))
def test_any_output_can_be_read(data: bytes, form: str, piece: int) -> None:
    found = said(form, data, piece)
    assert found.answer()[0] == data.decode("utf-8", "replace") or form != "text"


_KEYS = [
    *("type", "item", "message", "content", "error", "errors"),
    *("result", "choices", "usage", "text", "role"),
]
_ENTRIES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_ENTRIES)
def test_any_object_can_be_read(entry: Any) -> None:
    said("jsonl", lines(entry))
    said("json", lines(entry))


# -- the usage file ----------------------------------------------------------------------------


def test_the_last_complete_line_with_usage_wins() -> None:
    line = json.dumps(USED)
    for text in (
        line,
        f"{line}\n",
        f'{{"input_tokens": 1}}\n{line}\n{{"input_tok',
        f'{line}\nnoise\n{{"note": 1}}\n',
        json.dumps(USED, indent=2),
        json.dumps({"usage": USED, "model": "m"}),
    ):
        assert last_usage(text.encode()).reading.usage == TokenParts(900, 70)
    for text in ("", "  \n", '{"note": 1}'):
        assert not last_usage(text.encode()).reading.says_something


def test_what_is_no_object_is_said_to_be_unreadable() -> None:
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    for text in ("900", "input: 12", '{"input_tok', '["input_tokens"]', deep):
        report = last_usage(text.encode())
        assert report.reading.usage is None
        assert report.reading.flag == "usage is no number of tokens"
        assert report.raw == "unreadable"  # not what was written


def test_the_file_is_private_bounded_and_gone_afterwards() -> None:
    file = UsageFile()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert len(file.path.name) == 32
    other = UsageFile()
    assert other.path.name != file.path.name
    other.remove()
    file.path.write_bytes(b'{"input_tokens": 1}\n' * READ_BYTES + json.dumps(USED).encode())
    assert file.read().reading.usage == TokenParts(900, 70)
    file.remove()
    assert not file.path.parent.exists()
    assert not file.read().reading.says_something


def test_a_worker_removes_what_killed_ones_left_and_nothing_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    running, elsewhere = UsageFile(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "asb-usage-link").symlink_to(elsewhere)
    for name in ("asb-usage-left", "asb-usage-young"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "usage").write_text("{}")
    long_ago = time.time() - 2 * LEFT_S
    for folder in (running.path.parent, elsewhere, tmp_path / "asb-usage-left"):
        os.utime(folder, (long_ago, long_ago))
    asyncio.run(CommandDriver(["true"]).prepare())
    assert running.path.exists()
    running.remove()
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["asb-usage-link", "asb-usage-young", "elsewhere"]


def test_what_a_command_puts_in_its_place_is_not_followed_and_not_waited_for(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.write_text(json.dumps(USED))
    for place in ("symlink", "fifo", "folder"):
        file = UsageFile()
        file.path.unlink()
        if place == "symlink":
            file.path.symlink_to(other)
        elif place == "fifo":
            os.mkfifo(file.path)
        else:
            file.path.mkdir()
        assert not file.read().reading.says_something
        file.remove()
        assert not file.path.parent.exists()
    assert other.exists()


# -- arguments ---------------------------------------------------------------------------------


def task(text: str) -> Task:
    async def send(task: Task, document: object) -> None: ...

    fields = {b"task": b"t", b"attempt": b"1", b"model": b"haiku", b"agent": b"claude"}
    return Task({**fields, b"text": text.encode()}, worker="w1", send=send)


@pytest.mark.parametrize(
    ("command", "text", "why"),
    [
        (["./agent.sh", "{prompt}"], "- [ ] do it", "begins with '-'"),
        (["my-agent", "-p", "{prompt}"], "--dangerously-skip-permissions", "begins with '-'"),
        (["my-agent", "--", "{prompt}"], "-", "begins with '-'"),
        (["my-agent", "{prompt}, please"], "--help", "begins with '-'"),
        (["gemini", "-p", "{prompt}"], "@~/.ssh/id_rsa", "begins with '@'"),
        (["javac", "--", "{prompt}"], "@arguments", "begins with '@'"),
        (["/usr/bin/claude", "-p", "{prompt}"], "/clear", "begins with '/'"),
        (["codex", "exec", "{prompt}"], "review", "one word"),
    ],
)
def test_a_prompt_that_could_be_an_option_a_file_or_a_command_is_refused_with_the_way_out(
    command: list[str], text: str, why: str
) -> None:
    with pytest.raises(PermanentError, match="standard input") as raised:
        filled(command, task(text))
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["my-agent", "--prompt={prompt}"], "--help"),
        (["my-agent", "--prompt={prompt}"], "@notes.md"),
        (["claude", "-p", "--", "{prompt}"], "--help"),
        (["codex", "exec", "--", "{prompt}"], "review"),
        (["codex", "exec", "{prompt}"], "review the diff"),
        (["echo", "{prompt}"], "review"),
        (["echo", "{prompt}"], "/etc/hosts is wrong"),
        (["echo", "{prompt}"], "say {model} {agent} {prompt}"),
    ],
)
def test_a_prompt_that_can_only_be_a_prompt_stands_where_the_user_put_it(
    command: list[str], text: str
) -> None:
    assert filled(command, task(text)) == [part.replace("{prompt}", text) for part in command]


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "my-agent {prompt}"],
        ["bash", "-lc", "echo '{prompt}'"],
        ["env", "X=1", "/bin/sh", "-ec", "echo {prompt}"],
        ["python3", "-c", "print('{prompt}')"],
        ["node", "-e", "console.log('{prompt}')"],
    ],
)
def test_a_prompt_within_a_script_is_refused_before_the_worker_joins(command: list[str]) -> None:
    with pytest.raises(ConfigError, match="would run as code"):
        check(command)


def test_a_prompt_behind_a_script_is_an_argument_of_it() -> None:
    check(["sh", "-c", 'my-agent "$1"', "sh", "{prompt}"])
    check(["python3", "-c", "import sys", "{prompt}"])
    check(["my-agent", "-c", "{prompt}"])
