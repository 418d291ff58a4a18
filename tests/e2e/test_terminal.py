"""What reaches a terminal: nothing that it would obey, and never a traceback, whatever the streams,
the locale, the bus or its address are like."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from typer.core import TyperGroup

from events.harmless import OBEYED, harmless, harmless_json, one_line
from services.cli.commands import COMMANDS, loaded
from services.store.client import SyncClient
from tests.e2e.cli import ASB, Up, environment
from tests.e2e.forked import Answer, Forks, forks
from tests.ports import free_port
from tests.wait import wait_blocking

# C0 and OSC with its two ends, C1, bidi, line separators, a lone carriage return.
EVIL = "a\x1b[2Jb\x1b]0;t\x07c\x9b31md\u202egnp.exe\u2066e\u2028f\rg\x7fh"
EVIL_TEXT = "do \x9b31m this \u202egnp.exe\u2066 \u200fnow"  # what an intake lets through
OBEYED_CHARACTER = re.compile(f"[{OBEYED}]")

# Every command that reads or writes a bus and ends by itself; {task} is one with evil in it.
COMMAND_LINES = tuple(
    line
    for lines in """
status | status --json | metrics | metrics --json | metrics --forecast | metrics --forecast --json
throttle | throttle --json | report | report --json | report --week this | report --month this
report --publish | tasks | tasks --json | tasks --waiting | tasks --failed | task {task}
task {task} --json | task evil-2 | task no-such | events --limit 0 | events --limit 0 --json
alerts | alerts --json | replay | replay --json | replay --verify | replay --verify --json
doctor | doctor --json | doctor --deep | config | config --json | limits | limits --json
limits list | limits set project money day 5 | limits remove project money day
limits alert tokens day 150K | limits saving off | limits guard warn | limits min-priority low
limits overdraft off | policy | policy show | policy show --json | policy price own --flat 0.01
policy plausible --tokens 2M | policy clock | policy clock confirm | prices | prices --json
prices haiku | correct | correct --json | correct no-such --drop --reason r | routes
routes --json | delegator why fix | delegator why fix --json | delegator learn
delegator check no-such.tsv | submit text --id s1 | submit text --json | cancel no-such
retry no-such | pause worker1 --reason r | resume worker1 | pause no-such | resume no-such
manager | manager text | redis --command keys | redis --command get --key {key}
redis --command set --key asb:progress:a:b --value {}
redis --command publish --channel c --value v
redis --command ttl --key {key} | redis --command del --key asb:progress:a:b
redis --command xadd --key asb:report:own --value {"a":1} | acl mallory | acl viewer --role viewer
deadletter | deadletter --json | deadletter show {letter} | deadletter show {letter} --json
deadletter retry {letter} | deadletter drop no-such | completion bash | account | account --json
account release no-such | archive | archive --verify | fleet up no-such.toml | top --once
top --json | usage reconcile | telemetry env claude | forget no-such --yes --verify
status --all-namespaces | status --all-namespaces --json | attach no-such
hooks install no-such --file hooks.json | agent-hook
""".strip().splitlines()
    for line in lines.split(" | ")
)
# Those that run until they are stopped; here what they meet at their start.
LASTING_LINES = (
    "events --follow", "alerts --follow", "status --watch", "redis --command subscribe --channel c",
    "worker w9 -- cat", "service progress",
)  # fmt: skip


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    """A bus on which everything that others can write is evil."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "out.txt").write_text(EVIL, newline="")
    up = Up(folder, "--workers", "1", "--", "sh", "-c", "cat out.txt; grep -q fail && exit 3 || :")
    try:
        up.start()
        _write_evil(up)
        yield up
    finally:
        up.end()


def _write_evil(up: Up) -> None:
    for name, text in (("evil-1", EVIL_TEXT), ("evil-2", f"fail {EVIL_TEXT}")):
        done = up.run("submit", "--id", name, "--max-attempts", "1", "--wait", text)
        assert OBEYED_CHARACTER.search(done.stdout + done.stderr) is None, done
    with_bus = SyncClient(up.url)
    for fields in (
        ("type", f"odd{EVIL}", "data", "{}"),
        ("type", "task.submitted", "data", json.dumps({"text": "x", "priority": EVIL})),
        ("type", "worker.paused", "data", json.dumps({"worker": "worker1", "reason": EVIL})),
        ("type", "task.submitted", "data", json.dumps({"text": EVIL_TEXT, "task": "evil-3"})),
        ("type", "task.cancel_requested", "data", json.dumps({"task": "evil-3", "reason": EVIL})),
        (
            "type",
            "usage.recorded",
            "data",
            json.dumps({"agent": "a", "total_tokens": 5, EVIL: EVIL}),
        ),
    ):
        with_bus.call("XADD", "asb:intake", "*", *fields)
    document = json.dumps({"task": EVIL, "status": "completed", "note": EVIL, "tokens_used": 7})
    with_bus.call("SET", "asb:progress:claude:evil", document)
    with_bus.call("SET", f"asb:progress:cla{EVIL}:evil", document)
    with_bus.call("SET", f"asb:own:{EVIL}", EVIL)
    with_bus.call("XADD", "asb:events", "*", "type", f"foreign{EVIL}", "data", EVIL)
    wait_blocking(lambda: with_bus.call("XLEN", "asb:deadletter") >= 2, within=10, what="refusals")
    wait_blocking(lambda: "evil-3" in up.run("tasks", "--status", "cancelled").stdout,
                  within=10, what="the cancellation")  # fmt: skip
    with_bus.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Generator[Forks]:
    with forks(tmp_path_factory.mktemp("forks")) as opened:
        yield opened


def filled(line: str, up: Up) -> list[str]:
    with_bus = SyncClient(up.url)
    letter = with_bus.call("XRANGE", "asb:deadletter", "-", "+", "COUNT", 1)
    with_bus.close()
    names = {"{task}": "evil-1", "{key}": f"asb:own:{EVIL}", "{letter}": letter[0][0].decode()}
    return [names.get(word, word) for word in line.split()]


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from texts_of(part)


def no_fault(answer: Answer, line: Sequence[str]) -> None:
    said = f"{' '.join(line)!r} ended with {answer.code}:\n{answer.out}\n{answer.err}"
    assert "Traceback" not in answer.err, said
    assert "asb itself failed" not in answer.err, said
    assert answer.code in (0, 1, 2, 130), said


def test_every_command_of_the_table_stands_among_these_lines() -> None:
    named = {
        tuple(line.split()[:2]) if " " in line else (line, "")
        for line in (*COMMAND_LINES, *LASTING_LINES)
    }
    first = {line.split()[0] for line in (*COMMAND_LINES, *LASTING_LINES)}
    assert {name for group in COMMANDS.values() for name in group} - first == {"up", "demo"}
    for name in ("limits", "policy", "delegator", "account", "fleet", "hooks"):
        group = loaded(name)
        assert isinstance(group, TyperGroup)
        assert {(name, below) for below in cast("dict[str, Any]", group.commands)} <= named


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_nothing_another_wrote_is_obeyed(line: str, bus: Up, run: Forks) -> None:
    arguments = [f"--data-dir={bus.data}", *filled(line, bus)]
    answer = run.run(arguments, stdin="status\nadd\nquit\n")
    no_fault(answer, arguments)
    assert OBEYED_CHARACTER.search(answer.err.replace("\n", "")) is None, answer.err
    assert "--command get" in line or OBEYED_CHARACTER.search(answer.out) is None, answer.out
    if "--json" in arguments and answer.code == 0:
        for text in (
            answer.out.splitlines() if "events" in line or "alerts" in line else [answer.out]
        ):
            json.loads(text)


def test_json_is_exact_where_the_screen_is_not(bus: Up, run: Forks) -> None:
    (found,) = [row for row in bus.ask("tasks") if row["task"] == "evil-1"]
    assert found["text"] == EVIL_TEXT
    assert EVIL in [text.strip("\n") for text in texts_of(bus.ask("task", "evil-1"))]
    get = ["redis", f"--data-dir={bus.data}", "--command", "get", "--key", f"asb:own:{EVIL}"]
    assert run.run(get).out == f"{EVIL}\n"


@pytest.mark.parametrize("line", [*COMMAND_LINES, *LASTING_LINES])
def test_no_stream_and_no_locale_brings_a_traceback(line: str, bus: Up, run: Forks) -> None:
    arguments = [f"--data-dir={bus.data}", *filled(line, bus)]
    lasting = [{"out": "full"}]
    ending = [{"out": "full"}, {"encoding": "ascii"}]
    for options in lasting if line in LASTING_LINES else ending:
        no_fault(run.run(arguments, **options), arguments)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_no_address_brings_a_traceback(line: str, run: Forks, tmp_path: Path) -> None:
    nobody = free_port()
    (tmp_path / "note").write_text("no folder")
    words = line.replace("{task}", "t").replace("{key}", "k").replace("{letter}", "1-1")
    addresses = (
        "--redis=redis://127.0.0.1:99999",
        "--redis=redis://127.0.0.1:-1",
        "--redis=redis://127.0.0.1:port",
        "--redis=redis://[::1",
        f"--redis=redis://127.0.0.1:{nobody}/x",
        f"--redis=127.0.0.1:{nobody}",
        "--redis=http://127.0.0.1",
        "--redis=",
        f"--redis=redis://127.0.0.1:{nobody}",
        f"--data-dir={tmp_path / 'none'}",
        f"--data-dir={tmp_path / 'note'}",
        "--config=/no/such/file.toml",
        f"--config={tmp_path}",
        "--namespace=a b\x1b",
    )
    own = COMMAND_LINES.index(line)  # each command meets one of them, one meets all
    for where in addresses if line == "status" else [addresses[own % len(addresses)]]:
        arguments = [where, f"--data-dir={tmp_path / 'none'}", *words.split()]
        if where.startswith("--data-dir"):
            arguments = [where, *words.split()]
        answer = run.run(arguments)
        no_fault(answer, arguments)
        assert OBEYED_CHARACTER.search(answer.err) is None, answer.err


@pytest.fixture(scope="module")
def empty_bus(redis_url: str) -> str:
    return f"--redis={redis_url}"


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_an_empty_bus_brings_no_traceback(
    line: str, empty_bus: str, namespace: str, run: Forks
) -> None:
    words = line.replace("{task}", "t").replace("{key}", "k").replace("{letter}", "1-1")
    words = words.replace("asb:", f"{namespace}:")
    arguments = [empty_bus, f"--namespace={namespace}", *words.split()]
    no_fault(run.run(arguments), arguments)


@pytest.mark.parametrize(
    "line",
    """
report --date 9999-12-31 | report --date 0001-01-01 | report --date 2026-02-30 | report --date x
report --week 9999-W53 | report --week 0001-W01 | report --week x | report --month 9999-12
report --month 0001-01 | report --month 2026-13 | report --date 1960-01-01
report --date 2999-01-01
events --since 99999999999999999999-0 | events --since 18446744073709551615-0 | events --since x
replay --until 9999999999999999999-0 | replay --until 0-0 | replay --until 1 | events --limit -1
tasks --limit 99999999999999999999 | alerts --limit 99999999999999999999 | task \udcff
submit \udcff | submit --timeout 99999999999999999999999 x | submit --estimate -5 x
submit --id \x1b x
limits set global tokens 99999999h 5 | limits set global tokens hour 1e400
limits set global money hour 99999999999999999999999999
limits alert tokens day 5 --at 99999999999
policy price \x1b --flat 1e999 | policy plausible --money 1e99
deadletter show 99999999999999999999-0
prices \x1b | delegator why \udcff | redis --command get --key \udcff
redis --command keys --pattern \udcff | pause \udcff | acl \udcff | status --watch 1e999
status --watch nan | worker w --silence nan -- cat | forget x --within nan
service \x1b | up --port 99999 | up --port -5 | demo --tasks 99999999999
submit --file \udcff | submit --from \udcff | submit --after \x1b x | report --month \udcff
submit --wait-limit nan --wait x | submit --wait-limit -1 --wait x
""".strip().replace("\n", " | ").split(" | "),
)  # fmt: skip
def test_odd_arguments_bring_no_traceback(line: str, bus: Up, run: Forks) -> None:
    arguments = [f"--data-dir={bus.data}", *line.split(" ")]
    answer = run.run(arguments)
    no_fault(answer, arguments)
    assert OBEYED_CHARACTER.search(answer.out + answer.err) is None


def test_a_pipe_that_closes_early_ends_with_0(bus: Up) -> None:
    for unbuffered in ("", "1"):
        events = f"{' '.join(ASB)} events --limit 0 --data-dir={bus.data}"
        shell = f"{events} | head -n1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", shell], capture_output=True, text=True, check=True,
            env={**environment(), "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
        assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")


def test_a_stdout_that_takes_nothing_is_said(bus: Up, run: Forks) -> None:
    for out in ("closed", "full"):
        answer = run.run([f"--data-dir={bus.data}", "status"], out=out)
        assert answer.code == 1
        assert "error: cannot write to standard output" in answer.err


def test_a_screen_in_ascii_is_aligned_and_json_is_exact(bus: Up, run: Forks) -> None:
    where = f"--data-dir={bus.data}"
    plain = run.run([where, "status"], encoding="ascii")
    assert "worker1" in plain.out
    assert "o  NONE" in plain.out
    rows = json.loads(run.run([where, "tasks", "--json"], encoding="ascii").out)
    assert EVIL_TEXT in [row["text"] for row in rows]


def test_what_a_terminal_obeys_is_shown_as_what_it_is() -> None:
    assert harmless("a\x1b[2J\r\nb\x9b\u202e\tc") == "a\\x1b[2J\nb\\x9b\\u202e\tc"
    assert harmless(harmless(EVIL)) == harmless(EVIL)
    assert one_line("a\n\n\tb") == "a b"
    for whole in (False, True):
        text = harmless_json(json.dumps(EVIL, ensure_ascii=False) + '"🟢"'[:0], ascii_only=whole)
        assert json.loads(text) == EVIL
    assert json.loads(harmless_json('"🟢ü"', ascii_only=True)) == "🟢ü"
