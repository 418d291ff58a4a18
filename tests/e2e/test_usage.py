"""Usage and prompts as users meet them: `asb up`, `asb worker` and `asb redis` with programs that
tell what they used in every way, and answers and prompts that pretend to be something else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest

from services.store.client import SyncClient
from tests.e2e.cli import ASB, Up, environment
from tests.wait import wait_blocking

FORGED = {"usage": {"input_tokens": 1_000_000, "output_tokens": 4}, "total_cost_usd": 30}
PRETTY = {"response": "four", "stats": {"models": {"gemini-2.5-flash": {"tokens": {
    "input": 3_000, "prompt": 5_000, "candidates": 20, "total": 5_029, "cached": 2_000,
    "thoughts": 9, "tool": 0}}}, "tools": {"totalCalls": 2}}}  # fmt: skip
SUBAGENTS = {
    "type": "result",
    "is_error": False,
    "result": "Delegated.",
    "usage": {"input_tokens": 800, "output_tokens": 200},
    "modelUsage": {
        "claude-sonnet-4-5": {"inputTokens": 800, "outputTokens": 200, "costUSD": 0.0054},
        "claude-haiku-4-5": {"inputTokens": 50_000, "outputTokens": 1_000, "costUSD": 0.055},
    },
    "total_cost_usd": 0.0604,
}
CACHED = {
    "model": "gemini-2.5-pro",
    "usage": {
        "prompt_tokens": 90_000,
        "completion_tokens": 700,
        "total_tokens": 90_700,
        "prompt_tokens_details": {"cached_tokens": 85_000},
    },
}
LINE = {"usage": {"input_tokens": 1_200, "output_tokens": 300}, "model": "sonnet", "text": "done"}
OUTPUTS = {
    "forged": "The API answered:\n" + json.dumps(FORGED),
    "pretty": json.dumps(PRETTY, indent=2),
    "noise": json.dumps(LINE) + "\n\x1b]0;agent\x07new version available\n",
    "subagents": json.dumps(SUBAGENTS),
    "cached": json.dumps(CACHED),
    "long": json.dumps({**LINE, "text": "word " * 40_000}),
}
PROGRAM = ("sh", "-c", 'cat "$(cat).out"')  # it prints what its prompt names
OPTIONS = """#!/bin/sh
case "$1" in -*) echo "unknown option $1" >&2; exit 1;; esac
echo "prompt=[$1]"
"""


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    """A bus with a worker for each format and one that takes the prompt as an argument."""
    folder = tmp_path_factory.mktemp("usage")
    for name, printed in OUTPUTS.items():
        (folder / f"{name}.out").write_text(printed)
    (folder / "agent.sh").write_text(OPTIONS)
    (folder / "agent.sh").chmod(0o755)
    up = Up(folder, "--workers=1", "--format=json", "--", *PROGRAM).start()
    with contextlib.ExitStack() as stack:
        stack.callback(up.end)
        for name, *words in (
            ("text", "--", *PROGRAM),
            ("jsonl", "--format=jsonl", "--", *PROGRAM),
            ("argument", "--", "./agent.sh", "{prompt}"),
        ):
            stack.enter_context(process(up, *ASB, "worker", f"--data-dir={up.data}", name, *words))
        client = SyncClient(up.url)
        stack.callback(client.close)
        for name in ("worker1", "text", "jsonl", "argument"):
            wait_blocking(
                lambda name=name: client.call("EXISTS", f"asb:worker:{name}"),
                within=60,
                what=f"{name} is there",
            )
        yield up


@contextlib.contextmanager
def process(bus: Up, *words: str) -> Generator[None]:
    """A process beside the bus, while the block lasts."""
    started = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=bus.folder,
        env=environment(),
    )  # fmt: skip
    try:
        yield
    finally:
        started.terminate()
        started.wait(timeout=30)


def done_by(bus: Up, worker: str, text: str) -> dict[str, Any]:
    """How one task ended that only ``worker`` may do, with what was charged for it."""
    words = ("submit", f"--worker={worker}", "--max-attempts=1", "--", text)
    task = bus.run(*words).stdout.strip()
    ends = ("task.completed", "task.failed")

    def story() -> dict[str, Any]:
        found = bus.ask("task", task)
        return found if found["events"][-1]["type"] in ends else {}

    found = wait_blocking(story, within=120, what="the end of the task")
    end = found["events"][-1]["data"]
    return {
        **end["charged"],
        "result": found["result"],
        "error": end.get("words", {}).get("error", ""),
    }


def parts(charged: dict[str, Any]) -> tuple[int, ...]:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return tuple(charged.get(name, 0) for name in names)


def test_an_answer_that_shows_usage_books_an_estimate_and_nothing_of_it(bus: Up) -> None:
    charged = done_by(bus, "text", "forged")
    assert charged["estimated"]
    assert charged["tokens"] < 5_000
    assert charged["result"].endswith(json.dumps(FORGED))


@pytest.mark.parametrize(
    ("worker", "printed", "want", "result"),
    [
        ("worker1", "pretty", (3_000, 29, 2_000, 0), "four"),
        ("jsonl", "noise", (1_200, 300, 0, 0), "done"),
        ("worker1", "subagents", (50_800, 1_200, 0, 0), "Delegated."),
        ("worker1", "cached", (5_000, 700, 85_000, 0), None),
    ],
)
def test_a_format_that_the_user_names_tells_the_usage_and_the_answer(
    bus: Up, worker: str, printed: str, want: tuple[int, ...], result: str | None
) -> None:
    charged = done_by(bus, worker, printed)
    assert parts(charged) == want
    assert not charged.get("estimated")
    assert result is None or charged["result"] == result


def test_an_answer_beyond_64_kb_keeps_its_usage(bus: Up) -> None:
    charged = done_by(bus, "jsonl", "long")
    assert parts(charged) == (1_200, 300, 0, 0)
    assert charged["result"].endswith("word word ")


def test_a_list_item_as_an_argument_is_refused_with_the_way_out_and_never_an_option(
    bus: Up,
) -> None:
    ended = done_by(bus, "argument", "- [ ] do it")
    assert "begins with '-'" in ended["error"]
    assert "standard input" in ended["error"]
    assert done_by(bus, "argument", "do - it")["result"] == "prompt=[do - it]\n"


def test_a_list_item_without_two_dashes_before_it_is_an_error_that_names_them(bus: Up) -> None:
    done = bus.run("submit", "- [ ] do it")
    assert done.returncode == 2
    assert "go behind --: asb submit -- " in done.stderr


def reported(bus: Up, agent: str, document: Any) -> dict[str, Any]:
    """An agent writes a progress document; the view that comes of it."""
    key = f"asb:progress:{agent}:T"
    done = bus.run("redis", "--command=set", f"--key={key}", f"--value={json.dumps(document)}")
    assert done.returncode == 0, done.stderr

    client = SyncClient(bus.url)

    def view() -> dict[str, Any]:
        return json.loads(client.call("GET", key)).get("asb", {})

    try:
        return wait_blocking(view, what="the view of the document")
    finally:
        client.close()


def test_a_vendors_names_in_a_document_are_counted_once(bus: Up) -> None:
    used = {
        "promptTokenCount": 4_100,
        "candidatesTokenCount": 300,
        "cachedContentTokenCount": 4_000,
        "thoughtsTokenCount": 12,
        "totalTokenCount": 4_412,
    }
    assert reported(bus, "gem", {"status": "working", "tokens_used": used})["tokens_total"] == 4_412


def test_a_share_that_reaches_one_is_all_of_it(bus: Up) -> None:
    assert reported(bus, "share", {"status": "working", "progress": 1.0})["progress"] == 100


def test_figures_in_texts_count_where_they_read_one_way(bus: Up) -> None:
    assert reported(bus, "comma", {"tokens_used": {"total": "1,500"}})["tokens_total"] == 1_500
    assert reported(bus, "power", {"tokens_used": {"total": 1e3}})["tokens_total"] == 1_000


def test_a_figure_that_cannot_be_read_is_named_by_log_metrics_and_doctor(bus: Up) -> None:
    seen = reported(bus, "probe", {"tokens_used": {"total": "12.5K"}})
    assert (seen["tokens_total"], seen["flagged"]) == (0, True)
    flag = "flagged: total: not a whole number of tokens"
    assert f"probe T · {flag}" in bus.run("events", "--type=progress.updated").stdout
    assert "Unreadable: 1 report of probe (asb doctor)" in bus.run("metrics").stdout
    [row] = [c for c in bus.ask("doctor")["checks"] if c["name"] == "usage"]
    assert row["verdict"] == "warn"
    assert "probe" in row["value"]


def test_usage_at_the_intake_is_read_as_everywhere(bus: Up) -> None:
    used = {
        "input_tokens": 70_100,
        "cache_read_input_tokens": 69_000,
        "cache_creation_input_tokens": 1_000,
        "output_tokens": 8,
        "total_tokens": 70_108,
    }
    client = SyncClient(bus.url)
    try:
        data = json.dumps({"agent": "inclusive", "model": "sonnet", "usage": used})
        client.call("XADD", "asb:intake", "*", "type", "usage.recorded", "data", data)
        padded = {"agent": "padded", "usage": {"input_tokens": f"{1_500:>22}"}}
        client.call("XADD", "asb:intake", "*", "type", "usage.recorded", "data", json.dumps(padded))
    finally:
        client.close()

    def charged() -> dict[str, Any]:
        agents = bus.ask("metrics")["by_agent"]
        return agents if {"inclusive", "padded"} <= set(agents) else {}

    agents = wait_blocking(charged, within=60, what="both are charged")
    assert agents["padded"]["input_tokens"] == 1_500
    assert parts(agents["inclusive"]) == (100, 8, 69_000, 1_000)


def test_a_python_worker_that_tells_a_float_keeps_its_result(bus: Up) -> None:
    script = bus.folder / "w.py"
    script.write_text(
        "from services.worker import Result, Task, Usage, worker\n"
        "@worker('pw', agent='pyagent')\n"
        "async def handle(task: Task) -> Result:\n"
        "    figure = 1e3 if task.text == 'float' else 12.5\n"
        "    return Result('the work', usage=Usage(input_tokens=figure, output_tokens=2))\n"
        f"handle.run(redis_url={bus.url!r})\n"
    )
    with process(bus, sys.executable, str(script)):
        good, bad = done_by(bus, "pw", "float"), done_by(bus, "pw", "half a token")
    assert (good["result"], parts(good)) == ("the work", (1_000, 2, 0, 0))
    assert (bad["result"], bad["estimated"]) == ("the work", True)
    assert "input_tokens" in bad["flag"]
