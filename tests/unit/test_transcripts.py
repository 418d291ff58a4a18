"""What agents wrote down, read again: each call once, and only those of the attempt. The traps are
those that were seen: one answer on several lines, subagents in files of their own, copies of a
parent's lines in a fork, running totals, lines written again, a last line cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from events.tokens import TokenParts, read
from services.client.reconcile import AGREES, DIFFERS, HEALED, RUNS, SILENT, reconciliations
from services.worker import records
from services.worker.drivers import claude, codex, gemini
from services.worker.drivers.codex import CodexStream
from services.worker.drivers.table import agent
from services.worker.records import AttemptRecord
from tests.unit.test_agent_streams import RECORDED
from tests.unit.test_meters import end, live, running

SESSION = "5c0de000-0000-4000-8000-000000000001"
SINCE = 1_795_724_000_000_000  # 2026-11-26T20:13:20Z
BEFORE, AFTER = "2026-11-26T19:00:00.000Z", "2026-11-26T20:14:00.000Z"


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts))
    return path


def parts(usage: dict[str, Any] | None) -> dict[str, TokenParts]:
    return dict(read(usage).models) if usage is not None else {}


# -- Claude Code -------------------------------------------------------------------------------


def answer(message: str, output: int = 40, at: str = AFTER, model: str = "opus[1m]") -> Any:
    usage = {"input_tokens": 10, "output_tokens": output, "cache_read_input_tokens": 1000,
             "cache_creation_input_tokens": 100}  # fmt: skip
    return {"type": "assistant", "timestamp": at, "requestId": f"req_{message}",
            "message": {"id": message, "model": model, "usage": usage}}  # fmt: skip


def test_claude(tmp_path: Path) -> None:
    projects = tmp_path / "projects" / "-home-user"
    write(
        projects / f"{SESSION}.jsonl",
        answer("old", at=BEFORE),  # of the run before, or of a fork's parent
        {"type": "user", "timestamp": AFTER, "message": {"content": "usage"}},
        answer("m1", output=1),
        answer("m1"),
        answer("m1"),
        answer("synthetic", model="<synthetic>"),
        '{"type": "assistant", "message": {"id": "cut',
    )
    write(projects / SESSION / "subagents" / "agent-a1.jsonl", answer("m2", model="haiku"))
    write(projects / "another.jsonl", answer("m9"))
    each = TokenParts(10, 40, 1000, 100)
    assert parts(claude.transcript(tmp_path, SESSION, SINCE)) == {"opus": each, "haiku": each}
    assert parts(claude.transcript(tmp_path, SESSION, 0))["opus"] == each.plus(each)
    assert claude.transcript(tmp_path, "../" + SESSION, 0) is None
    assert claude.transcript(tmp_path, "", 0) is None


# -- Codex -------------------------------------------------------------------------------------


def used(calls: int) -> dict[str, int]:
    return {"input_tokens": 1000 * calls, "cached_input_tokens": 600 * calls,
            "cache_write_input_tokens": 0, "output_tokens": 50 * calls,
            "reasoning_output_tokens": 20 * calls, "total_tokens": 1050 * calls}  # fmt: skip


def turn_record(turn: str, calls: int, thread: int, at: str = AFTER) -> Any:
    payload = {"turn_id": turn, "usage": used(1), "turn_token_usage": used(calls),
               "thread_token_usage": used(thread)}  # fmt: skip
    return {"type": "token_usage_record", "timestamp": at, "payload": payload}


def model_of(turn: str, model: str = "gpt-6.1-sol") -> Any:
    return {"type": "turn_context", "payload": {"turn_id": turn, "model": model}}


RESUMED = (
    model_of("t1"),
    turn_record("t1", 1, 1, at=BEFORE),
    turn_record("t1", 3, 3, at=BEFORE),
    model_of("t2"),
    turn_record("t2", 1, 4),
    turn_record("t2", 2, 5),
    turn_record("t2", 2, 5),  # written again
)


def test_codex(tmp_path: Path) -> None:
    day = tmp_path / "sessions" / "2026" / "11" / "26"
    write(day / f"rollout-2026-11-26T20-13-20-{SESSION}.jsonl", *RESUMED)
    each = TokenParts(400, 50, 600)
    assert parts(codex.transcript(tmp_path, SESSION, SINCE)) == {"gpt-6.1-sol": each.plus(each)}
    whole = parts(codex.transcript(tmp_path, SESSION, 0))["gpt-6.1-sol"]
    assert whole == TokenParts(2000, 250, 3000)
    assert codex.transcript(tmp_path, "*", 0) is None


def test_a_resumed_codex_thread_tells_its_whole_total_and_is_charged_its_turn(
    tmp_path: Path,
) -> None:
    day = tmp_path / "sessions" / "2026" / "11" / "26"
    write(day / f"rollout-2026-11-26T20-13-20-{SESSION}.jsonl", *RESUMED)
    stream = CodexStream()
    for line in (
        {"type": "thread.started", "thread_id": SESSION},
        {"type": "turn.completed", "usage": used(5)},
    ):
        stream.write(json.dumps(line).encode() + b"\n")
    stream.close()
    stream.after(0, "", {"CODEX_HOME": str(tmp_path)})
    assert read(stream.used).usage == TokenParts(800, 100, 1200)


# -- Gemini CLI --------------------------------------------------------------------------------


def chat(message: str, at: str = AFTER) -> Any:
    tokens = {"input": 900, "output": 30, "cached": 400, "thoughts": 10, "tool": 0, "total": 940}
    return {"id": message, "type": "gemini", "timestamp": at, "tokens": tokens, "model": "flash"}


def test_gemini(tmp_path: Path) -> None:
    write(
        tmp_path / "tmp" / "p" / "chats" / "session-1.jsonl",
        {"sessionId": SESSION, "kind": "main"},
        chat("old", at=BEFORE),
        chat("g1"),
        chat("g1"),  # again, with its tools
        {"$set": {"lastUpdated": AFTER}},
    )
    each = TokenParts(500, 40, 400)
    assert parts(gemini.transcript(tmp_path, SESSION, SINCE)) == {"flash": each}
    assert parts(gemini.transcript(tmp_path, SESSION, 0)) == {"flash": each.plus(each)}
    assert gemini.transcript(tmp_path, "another", 0) is None


# -- against what was charged ------------------------------------------------------------------


def recorded(tmp_path: Path, task: str, session: str = SESSION) -> AttemptRecord:
    return AttemptRecord(task, 1, "w1", "claude", session, str(tmp_path), SINCE)


def transcript_in(tmp_path: Path) -> None:
    write(tmp_path / "projects" / "p" / f"{SESSION}.jsonl", answer("m1"), answer("m2"))


def test_an_attempt_that_was_estimated_is_healed_once(tmp_path: Path) -> None:
    transcript_in(tmp_path)
    bus, task = running(max_attempts=1, timeout_s=600)
    of = [recorded(tmp_path, task), recorded(tmp_path, task, "given-and-never-used")]
    assert reconciliations(bus.state, of) == []
    assert [entry.outcome for entry in reconciliations(bus.state, of, every=True)] == [RUNS]
    bus.wait(700)
    (entry,) = reconciliations(bus.state, of)
    assert (entry.outcome, entry.tokens) == (HEALED, 300)
    assert entry.estimated == entry.charged > 0
    live(bus, task, "transcript", 300)  # as ``heal`` sends it
    (entry,) = reconciliations(bus.state, of)
    assert (entry.outcome, entry.charged, entry.estimated) == (AGREES, 300, 0)


def test_what_a_worker_itself_said_stands(tmp_path: Path) -> None:
    transcript_in(tmp_path)
    bus, task = running()
    end(bus, task, 900)
    assert reconciliations(bus.state, [recorded(tmp_path, task)]) == []
    (entry,) = reconciliations(bus.state, [recorded(tmp_path, task)], every=True)
    assert (entry.outcome, entry.tokens, entry.charged) == (DIFFERS, 300, 900)


def test_an_attempt_without_a_transcript_stays_estimated(tmp_path: Path) -> None:
    bus, task = running(max_attempts=1, timeout_s=600)
    bus.wait(700)
    (entry,) = reconciliations(bus.state, [recorded(tmp_path, task)])
    assert (entry.outcome, entry.tokens) == (SILENT, None)


def test_records_are_bounded_and_survive_a_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FILE_BYTES", 400)
    path = records.path_in(tmp_path)
    for n in range(6):
        records.write(path, recorded(tmp_path, f"t{n}"))
    with path.open("ab") as file:
        file.write(b'{"task": "cut')
    assert path.stat().st_size < 900
    kept = [record.task for record in records.read(path)]
    assert kept[-1] == "t5"
    assert len(kept) < 6


@pytest.mark.parametrize(
    ("name", "recorded_in", "file", "place"),
    [
        ("claude", "claude-code-2.1.330", "transcript.jsonl", f"projects/p/{SESSION}.jsonl"),
        ("codex", "codex-0.169.0", "rollout.jsonl", f"sessions/1/2/3/rollout-x-{SESSION}.jsonl"),
    ],
)
def test_recorded_transcripts_say_what_the_stream_said(
    tmp_path: Path, name: str, recorded_in: str, file: str, place: str
) -> None:
    """Of every recorded run that ended well and was not interrupted (of an answer that was cut off
    a transcript keeps the first token); where there are no recordings there is none."""
    for number, path in enumerate(sorted((RECORDED / recorded_in).glob(f"*/{file}"))):
        said_it = path.parent / "stdout"
        if not said_it.exists():
            continue
        stream = agent(name).stream()
        stream.write(said_it.read_bytes())
        stream.close()
        cut = "interrupt" in path.parent.name
        if stream.ended and not stream.failed and stream.used and not cut:
            folder = tmp_path / str(number)
            write(folder / place, path.read_text(encoding="utf-8"))
            said = agent(name).transcript(folder, SESSION, 0)
            assert read(said).usage == read(stream.used).usage, path
