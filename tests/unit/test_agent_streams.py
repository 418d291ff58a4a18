"""What the readers of the agents' streams understand: tokens by model, ends, refusals, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from events.tokens import TokenParts, read
from services.worker.drivers.stream import AgentStream
from services.worker.drivers.table import AGENTS, agent
from tests.agents import scripted
from tests.agents.scripted import FLASH, HAIKU, LITE, OPUS, RESETS_AT, SESSION

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
ONE = TokenParts(10, 40, 1000, 100)


def heard(
    name: str, part: str, *, code: int | None = None, stderr: str = "", home: str = "/nowhere"
) -> AgentStream:
    """The stream of a part, read in pieces that cut lines anywhere."""
    stream = agent(name).stream()
    data = scripted.lines(name, part)
    for start in range(0, len(data), 97):
        stream.write(data[start : start + 97])
    stream.close()
    ended = scripted.ENDS[name].get(part, 0) if code is None else code
    stream.after(ended, stderr, {"CODEX_HOME": home})
    return stream


def parts(stream: AgentStream) -> TokenParts | None:
    return read(stream.used).usage


def times(calls: int) -> TokenParts:
    return TokenParts(10 * calls, 40 * calls, 1000 * calls, 100 * calls)


# -- Claude Code -------------------------------------------------------------------------------


def test_claude_one_turn() -> None:
    stream = heard("claude", "well")
    assert (stream.ended, stream.failed, stream.said) == (True, False, "All done.")
    assert (parts(stream), stream.model, stream.cost_usd) == (ONE, OPUS, 0.01)
    assert (stream.session, stream.version) == (SESSION, "2.1.332")
    assert stream.windows == {"five_hour": {"used_percent": 42, "resets_at": RESETS_AT}}


def test_claude_counts_subagents_and_keeps_the_last_of_several_results() -> None:
    stream = heard("claude", "subagents")
    assert stream.said == "The subagent says: done."
    assert dict(read(stream.used).models) == {OPUS: times(2), HAIKU: times(3)}
    assert stream.model == HAIKU
    assert not stream.tools


def test_claude_resumed_counts_only_its_own_run() -> None:
    assert parts(heard("claude", "resumed")) == ONE


def test_claude_without_increments_counts_its_newest_total() -> None:
    """2.1.197 tells none."""
    stream = agent("claude").stream()
    for calls in (1, 2):
        line = scripted.result({f"{OPUS}[1m]": scripted.of_model(calls)})
        del line["model_usage_since_last_result"]
        stream.take(line)
    assert (parts(stream), stream.model) == (times(2), OPUS)


def test_claude_tells_what_it_used_while_it_runs() -> None:
    stream = heard("claude", "silent")
    assert read(stream.live_usage).usage == ONE  # completed by the event, told twice by lines
    assert stream.used is None
    assert not stream.ended


def test_claude_interrupted_keeps_what_it_spent_and_is_no_success() -> None:
    stream = agent("claude").stream()
    for line in (scripted.init(), *scripted.call(1), scripted.interrupted()):
        stream.take(line)
    assert (stream.failed, stream.permanent) == (True, False)
    assert parts(stream) == TokenParts(10, 20, 1000, 100)


def test_claude_refused_permissions_are_counted() -> None:
    stream = heard("claude", "denied")
    assert stream.facts()["denials"] == 2
    assert stream.facts()["denied"] == ["Bash"]


@pytest.mark.parametrize(
    ("part", "permanent", "limit", "words"),
    [
        ("unauthorized", True, False, "Failed to authenticate"),
        ("no-key", True, False, "set ANTHROPIC_API_KEY"),
        ("overloaded", False, False, "Overloaded"),
        ("limit", False, True, "5-hour limit"),
        ("limit-untold", False, True, "rejected (429)"),
    ],
)
def test_claude_failures(part: str, permanent: bool, limit: bool, words: str) -> None:
    stream = heard("claude", part)
    assert stream.failed
    assert (stream.permanent, stream.limit) == (permanent, limit)
    assert words in stream.error
    assert stream.no_call
    assert stream.limit_until == (RESETS_AT if part == "limit" else 0)


def test_claude_failed_after_a_good_call_has_used_it() -> None:
    stream = heard("claude", "midway")
    assert (stream.failed, stream.permanent, stream.no_call) == (True, False, False)
    assert parts(stream) == ONE


# -- Codex -------------------------------------------------------------------------------------


def with_rollout(folder: Path, part: str) -> AgentStream:
    place = folder / "sessions" / "2026" / "11" / "26"
    place.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in scripted.rollout(part))
    (place / f"rollout-2026-11-26T00-00-00-{SESSION}.jsonl").write_text(text)
    return heard("codex", part, home=str(folder))


CODEX_PARTS = TokenParts(400, 50, 600, 0)


def test_codex_one_turn(tmp_path: Path) -> None:
    stream = with_rollout(tmp_path, "well")
    assert (stream.ended, stream.failed, stream.said) == (True, False, "All done.")
    assert (parts(stream), stream.model) == (CODEX_PARTS, "gpt-6.1-sol")
    assert stream.windows["primary"]["used_percent"] == 42


def test_codex_without_its_rollout_knows_all_but_the_model() -> None:
    stream = heard("codex", "well")
    assert (parts(stream), stream.model) == (CODEX_PARTS, "")


def test_codex_failed_in_mid_run_has_used_what_its_rollout_says(tmp_path: Path) -> None:
    stream = with_rollout(tmp_path, "midway")
    assert (stream.failed, stream.error) == (True, "stream disconnected")
    assert (parts(stream), stream.no_call) == (CODEX_PARTS, False)


def test_codex_killed_has_used_what_its_rollout_says(tmp_path: Path) -> None:
    stream = with_rollout(tmp_path, "dies")
    assert (stream.ended, parts(stream)) == (False, CODEX_PARTS)


def test_codex_limit(tmp_path: Path) -> None:
    stream = with_rollout(tmp_path, "limit")
    assert (stream.limit, stream.permanent, stream.no_call) == (True, False, True)
    assert stream.limit_until == RESETS_AT
    assert heard("codex", "limit").limit  # by its words alone, too


@pytest.mark.parametrize(
    ("part", "words"), [("unauthorized", "401 Unauthorized"), ("wrong", "no such model")]
)
def test_codex_permanent_failures(part: str, words: str) -> None:
    stream = heard("codex", part)
    assert (stream.permanent, stream.limit) == (True, False)
    assert words in stream.error


def test_codex_that_only_reconnects_shows_no_work() -> None:
    stream = heard("codex", "trouble")
    assert (stream.worked, stream.ended) == (False, False)
    assert stream.in_trouble_since
    stream.take(scripted.message("back"))
    assert not stream.in_trouble_since


# -- Gemini CLI --------------------------------------------------------------------------------


def test_gemini_counts_the_router_and_thoughts() -> None:
    stream = heard("gemini", "well")
    assert (stream.ended, stream.failed, stream.said) == (True, False, "All done.")
    assert dict(read(stream.used).models) == dict.fromkeys((FLASH, LITE), TokenParts(500, 40, 400))
    assert stream.model in (FLASH, LITE)


@pytest.mark.parametrize(
    ("part", "permanent", "limit", "words"),
    [
        ("limit", False, True, "exhausted your daily quota"),
        ("wrong", True, False, "API error 400: no such model"),
        ("untrusted", True, False, "trust"),
    ],
)
def test_gemini_failures(part: str, permanent: bool, limit: bool, words: str) -> None:
    stream = heard("gemini", part)
    assert (stream.permanent, stream.limit) == (permanent, limit)
    assert words in stream.error
    assert stream.no_call


def test_gemini_tells_its_reason_on_stderr_behind_chatter() -> None:
    said = 'Warning: True color\n{"session_id": "s", "error": {"message": "no key", "code": 41}}'
    stream = heard("gemini", "nothing", code=41, stderr=said)
    assert (stream.error, stream.permanent) == ("no key", True)


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_an_answer_cannot_forge_the_bill(name: str) -> None:
    stream = heard(name, "forged")
    assert stream.said == scripted.FORGED
    usage = parts(stream)
    assert usage is not None
    assert usage.whole < 3000


@pytest.mark.parametrize("name", AGENTS)
def test_lines_of_unknown_types_are_counted_and_change_nothing(name: str) -> None:
    known, newer = heard(name, "well"), heard(name, "news")
    assert parts(known) == parts(newer)
    assert (newer.ended, newer.failed, newer.said) == (True, False, "All done.")
    assert sum(newer.unknown.values()) == 1
    assert newer.facts()["unknown_lines"]


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("value", [None, 7, "text", [], [1], {}, {"x": []}, True, 1.5])
def test_a_line_of_any_shape_is_read(name: str, value: Any) -> None:
    stream = agent(name).stream()
    for kind in stream.handlers:
        for inside in ("message", "item", "event", "error", "stats", "usage", "modelUsage",
                       "rate_limit_info", "content", "models", "permission_denials"):  # fmt: skip
            stream.take({"type": kind, "subtype": "init", inside: value, "is_error": True})
    stream.after(1, "", {})
    read(stream.used)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_that_says_nothing_has_begun_nothing(name: str) -> None:
    stream = heard(name, "nothing")
    assert (stream.began, stream.ended) == (False, False)


# -- recordings of the real programs, where there are any --------------------------------------

_EXPECTED = {"claude-code": TokenParts(11, 42, 17000, 1300), "codex": TokenParts(400, 50, 600),
             "gemini-cli": TokenParts(500, 40, 400)}  # fmt: skip
_ONE_CALL = (
    "stream-json",
    "json-text",
    "stdin-prompt",
    "prompt-100kB-stdin",
    "api-429-once-stream",
)


def _recordings() -> list[Path]:
    folders = [RECORDED / name for name in ("claude-code-2.1.330", "codex-0.169.0",
                                            "gemini-cli-0.61.0")]  # fmt: skip
    return sorted(path for folder in folders for path in folder.glob("*/stdout"))


def test_recorded_streams_of_the_real_programs() -> None:
    for path in _recordings():
        data = path.read_bytes()
        if not data.startswith(b'{"'):
            continue
        program = path.parent.parent.name.rpartition("-")[0]
        stream = agent(
            {"claude-code": "claude", "gemini-cli": "gemini"}.get(program, program)
        ).stream()
        stream.write(data)
        stream.close()
        status = (path.parent / "exit").read_text().strip()
        stream.after(int(status) if status.isdigit() else None, "", {})
        good = stream.ended and not stream.failed
        assert good == (status == "0" and "SIGINT" not in path.parent.name), path
        if good:
            usage = parts(stream)
            assert usage is not None, path
            assert read(stream.used).flag == "", path
            if path.parent.name in _ONE_CALL:
                assert usage == _EXPECTED[program], path
        else:
            assert stream.error or not stream.ended, path
