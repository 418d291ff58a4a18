"""Secrets are found and masked, each kind of them; what is none stays as it is."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from events import secrets
from events.envelope import beside, text_of, words_of
from events.words import mark_of
from services import letters
from services.decider import IntakeEntry, Rejection
from services.mentions import is_about
from services.runtime.logs import HarmlessLines, JsonLines
from services.runtime.urls import redacted
from services.worker.messages import clipped
from tests.given import SECRET, Bus
from tests.planted import KINDS, plant, plants

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "tasks.jsonl"


def test_every_kind_has_a_sample() -> None:
    assert len(KINDS) >= 40
    assert set(KINDS) == {kind.name.removeprefix(secrets.WEAK) for kind in secrets.kinds()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "around", ["{}", "use {} now", "a\n{}\nb", "('{}')", "x={};", '{{"k": "{}"}}']
)
def test_each_kind_is_masked_wherever_it_stands(kind: str, around: str) -> None:
    """The secret goes, what stands around it stays, and masking again changes nothing."""
    for number in range(3):
        text, secret = plant(kind, number)
        whole = around.format(text)
        counts: Counter[str] = Counter()
        clean = secrets.masked(whole, counts)
        assert secret not in clean
        assert sum(counts.values()) == 1, (counts, whole)
        assert clean.startswith(around.partition("{}")[0].replace("{{", "{").replace("}}", "}"))
        assert secrets.masked(clean) == clean
        assert secret not in secrets.masked_json(json.dumps([{"n": [whole]}]).encode()).decode()


def test_what_is_none_is_not_masked() -> None:
    """Sources of this project and texts of tasks, each as a result: at most one in a thousand."""
    folders = ("events", "projections", "services", "ops", "tests")
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    files = [path for path in paths if path.suffix in (".py", ".md", ".lua", ".toml", ".yml")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    if SHARED.exists():
        texts += [json.loads(line)["text"] for line in SHARED.read_text("utf-8").splitlines()]
    wrong = [(text[hit.start - 30 : hit.end], hit) for text in texts for hit in secrets.find(text)]
    assert len(texts) > 500
    assert len(wrong) * 1_000 <= len(texts), wrong


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:PASSWORD@HOST", "postgres://u:${DB_PASSWORD}@h/x", "http://u:***@host/",
        "password = os.environ['DB_PASSWORD']", "token = settings.token_2", "password: str | None",
        "the task-01234567890123456789abc is open", "input_tokens: 12345678901234567890",
        "secret = b'5' * 64", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef01234567", "password=<your-password>", "key-value",
        "see https://example.org/a:b/@c", "passwd: changeme", "api_key = get_key(name)",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert secrets.masked(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p%40ss%2Fw" + "@h:1/0", "redis://u:***@h:1/0"),
        ("redis://:p@ss:w/ord" + "@h:1/0", "redis://:***@h:1/0"),
        ("redis://h:1/0?pass" + "word=hunter2&x=1", "redis://h:1/0?password=***&x=1"),
        ("unix:///s.sock?db=1&Password=a%40b", "unix:///s.sock?db=1&Password=***"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_no_address_is_shown_with_its_password(url: str, shown: str) -> None:
    """However it is encoded, and wherever in the address it stands."""
    assert redacted(url) == shown
    assert secrets.masked(shown) == shown


def test_an_object_may_name_what_it_holds() -> None:
    value = {"user": "bob", "password": "hunter" + "22", "deep": [{"api_key": "aB3" * 12}]}
    counts: Counter[str] = Counter()
    assert secrets.masked_value(value, counts) == {
        "user": "bob",
        "password": "[masked: password]",
        "deep": [{"api_key": "[masked: assignment]"}],
    }
    assert counts == {"password": 1, "assignment": 1}


def test_a_cut_does_not_save_a_secret() -> None:
    """What is masked is masked before it is cut."""
    text, secret = plant("anthropic")
    cut = clipped(secrets.masked("x " * 50 + text), 60)
    assert not any(secret[n : n + 12] in cut for n in range(len(secret) - 12))


@pytest.mark.parametrize("formatter", [HarmlessLines("%(message)s"), JsonLines()])
def test_no_log_line_holds_one(formatter: logging.Formatter) -> None:
    for _, text, secret in plants(len(KINDS)):
        record = logging.LogRecord("asb", logging.INFO, "x", 1, "an agent said %s", (text,), None)
        assert secret.splitlines()[0][:20] not in formatter.format(record) or "\n" in secret
        if "\n" in secret:
            assert secret.splitlines()[2] not in formatter.format(record)


# -- through the engine ----------------------------------------------------------------------------


def a_bus() -> tuple[Bus, str]:
    bus = Bus()
    bus.join("w1", agent="codex", capacity=999)
    task = bus.submit("do it")
    bus.run()
    return bus, task


def test_results_errors_reasons_and_documents_hold_a_mask() -> None:
    """Count and kinds are public; the mark is that of what was written; the raw entry is to go."""
    text, secret = plant("github")
    bus, task = a_bus()
    second = bus.submit(f"use {text} there", note=text)
    third = bus.submit("cancel me", after=[task])
    bus.run()
    result = {"answer": text, text: ["two", text]}
    bus.report("task.completed", task, result=result, note=text)
    bus.report("task.failed", second, error=f"it said {text}", retryable=False)
    bus.send("task.cancel_requested", task=third, reason=text)
    bus.send("progress.updated", agent="codex", task="x", document={"note": text})
    bus.run()
    for event in bus.events:
        if event.type == "task.submitted":
            continue
        assert secret not in event.raw.decode(), event.type
    (done,) = (e for e in bus.events if e.type == "task.completed")
    assert beside(done).secrets == {"github": 4}
    assert words_of(done)["result"]["answer"] == "[masked: github]"
    written = json.dumps({"note": text}).encode()
    document = next(e for e in bus.events if e.type == "progress.updated")
    assert beside(document).marks["document"] == mark_of(msgspec.Raw(written), SECRET)
    assert bus.unclean


def test_a_number_beyond_every_range_stops_nobody_and_hides_no_secret() -> None:
    """It is JSON, so it stands on the log; no reader of ours takes it for a number."""
    text, secret = plant("github")
    bus, _ = a_bus()
    for task, note in (("odd", '[1e400, "x"]'), ("odd-2", f'[1e400, "{text}"]')):
        data = f'{{"text": "do it", "task": "{task}", "note": {note}}}'
        bus.put([b"type", b"task.submitted", b"data", data.encode()])
    bus.run()
    odd, masked_one = (e for e in bus.events if getattr(e.data, "task", "").startswith("odd")
                       and e.type == "task.submitted")  # fmt: skip
    assert words_of(odd)["text"] == "do it"
    assert words_of(odd)["note"] == '[1e400, "x"]'
    assert text_of(odd, "note") == '[1e400, "x"]'
    assert secret not in masked_one.raw.decode()
    assert "[masked: github]" in words_of(masked_one)["note"]
    assert bus.refused == []


def test_a_prompt_is_handed_on_whole_and_shown_masked() -> None:
    text, secret = plant("stripe")
    bus, _ = a_bus()
    task = bus.submit(f"use {text} there", note=text)
    bus.run()
    submitted = next(e for e in bus.events if e.type == "task.submitted" and e.data.task == task)
    assert words_of(submitted)["text"] == f"use {text} there"
    assert words_of(submitted)["note"] == "[masked: stripe]"
    assert text_of(submitted, "text") == "use [masked: stripe] there"
    delegated = [e for e in bus.events if e.type == "task.delegated"]
    assert all(secret not in e.raw.decode() for e in delegated)


def test_a_rejected_entry_is_kept_masked() -> None:
    """Data, flat fields, and what the error quotes of them."""
    text, secret = plant("openai")
    bus, _ = a_bus()
    bus.send("task.submitted", text=text, priority=text)
    bus.put([b"type", b"task.submitted", b"text", text.encode(), b"priority", text.encode()])
    bus.put([b"type", text.encode()])
    bus.run()
    assert len(bus.refused) == 3
    for letter in bus.refused:
        kept = b" ".join(letter.entry.fields).decode() + letter.error
        assert secret not in kept
        assert secret[:12] not in kept
        assert "masked in what is kept" in letter.error
    assert bus.unclean


def test_prompts_that_hold_one_are_refused_where_that_is_set() -> None:
    text, secret = plant("jwt")
    bus, _ = a_bus()
    bus.inputs.defaults = bus.inputs.defaults.__class__(refuse_secrets=True)
    bus.submit("without")
    bus.submit(f"here: {text}")
    bus.run()
    (letter,) = bus.refused
    assert "(jwt) at position 6" in letter.error
    assert secret not in b" ".join(letter.entry.fields).decode()


def test_an_id_may_hold_what_json_escapes() -> None:
    """An entry about a task is known as such whatever stands in the id."""
    for task in ('a"b', "a\\b", "ä", "t1"):
        for data in (json.dumps({"x": 1, "task": task}), json.dumps({"task": task})[:-1]):
            entry = IntakeEntry("asb:intake", "5-0", [b"type", b"x", b"data", data.encode()])
            assert is_about(entry, "asb:intake", {task})
            assert not is_about(entry, "asb:intake", {"another"})


def test_what_is_too_long_to_be_looked_through_is_not_kept() -> None:
    """One entry of many megabytes does not hold up the engine, and what nobody looked at stays
    neither among the dead letters nor at its intake."""
    (text, first), (_, last) = plant("jwt"), plant("github")
    body = f'{{"text": "{text} {"x" * 10_000_000} {last}"}}'.encode()
    entry = IntakeEntry("asb:intake", "5-0", [b"type", b"task.submitted", b"data", body])
    kept = letters.masked(Rejection(entry, "too long"))
    plain = b" ".join(kept.entry.fields)
    assert kept.size == sum(map(len, entry.fields))
    assert len(plain) <= letters.LOOKED_AT + 1_000
    assert first.encode() not in plain
    assert last.encode() not in plain
    assert letters.may_hold(entry)
