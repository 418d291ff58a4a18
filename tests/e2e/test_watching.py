"""A running bus, watched: the page in a real browser, `asb top` in a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.queries.metrics import Served, read
from services.store.client import SyncClient
from services.store.embedded import start
from tests.browser import DESKTOP, PHONE, Browser, browser
from tests.e2e.cli import AGENT, ASB, Process, Up, asb, environment
from tests.ports import free_port
from tests.wait import wait_blocking

pytestmark = [pytest.mark.timeout(600)]
HOSTILE = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>\u202eevil"
NO_ENGINE = "document.querySelector('main').innerText.includes('no engine')"
SHOWN = "document.querySelector('.tiles .big')"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Generator[Up]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "agent.py").write_text(AGENT)
    words = ("--workers=2", "--", sys.executable, str(folder / "agent.py"))
    running = Up(folder, *words).start()
    try:
        address(running)
        assert (
            running.run("submit", "Write documentation", "Fix the login", "--wait").returncode == 0
        )
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    with browser() as page:
        yield page


@pytest.fixture
def page(up: Up, chromium: Browser) -> Browser:
    """The page of the bus, on a desk, as somebody finds it who opens it anew."""
    chromium.errors.clear()
    chromium.size(*DESKTOP)
    chromium.open(address(up))
    chromium.wait(SHOWN)
    chromium.run("sessionStorage.clear()")
    return chromium


def address(up: Up) -> str:
    """Where `asb up` says that its page is; of the newest process that served it."""
    pattern = r"the page: (http://\S+)"
    wait_blocking(lambda: re.search(pattern, up.said), within=30, what="the page's address")
    return re.findall(pattern, up.said)[-1]


def exported(up: Up, events: int) -> Served:
    """The metrics that stand for so many events of the log."""
    named = re.search(r"metrics at http://(\S+)/metrics", up.said)
    assert named is not None, up.said

    def reached() -> Served | None:
        served = read(named[1])
        return served if served is not None and served.events == events else None

    served = wait_blocking(reached, within=20, what=f"metrics of {events} events")
    assert served is not None
    return served


def token(up: Up) -> str:
    return (up.data / "web-token").read_text().strip()


def tasks(up: Up) -> int:
    """How many tasks were ever submitted."""
    return int(up.ask("status")["tasks"]["submitted"])


def settled(up: Up) -> str:
    """Wait until nothing runs; the log id of then."""

    def quiet() -> str:
        status = up.ask("status")
        return "" if status["tasks"]["running"] or status["tasks"]["in_queue"] else status["as_of"]

    return wait_blocking(quiet, within=30, what="nothing runs")


# -- the page ------------------------------------------------------------------------------------


def test_the_page_is_live(up: Up, page: Browser) -> None:
    up.run("submit", "Rename the module", "--id", "live-1")
    page.wait("[...document.querySelectorAll('.log td')].some(c => c.innerText.includes('live-1'))")
    page.wait("document.querySelector('#state').innerText == 'live'")
    assert page.errors == []


def test_figures_are_the_same_on_page_top_metrics_and_status(up: Up, page: Browser) -> None:
    log_id = settled(up)
    page.wait(f"document.querySelector('#link').href.endsWith('{log_id}')")
    asked = urllib.request.urlopen(f"{address(up)}api/moment?at={log_id}", timeout=10)
    shown: dict[str, Any] = json.load(asked)["overview"]
    top: dict[str, Any] = up.ask("top", f"--at={log_id}")["overview"]
    assert top == shown
    status, metrics = up.ask("status"), up.ask("metrics")
    assert {status["as_of"], metrics["as_of"], shown["as_of"]} == {log_id}
    assert shown["tokens"] == status["tokens_used"] == metrics["total"]["tokens"] > 0
    assert shown["cost_nanos"] == status["cost_nanos"] == metrics["total"]["cost_nanos"]
    assert shown["tasks"]["completed"] == status["tasks"]["completed"]
    used = {(r["unit"], r["window"]): r["used"] for r in shown["windows"] if r["scope"] == "global"}
    assert used == {(r["unit"], r["window"]): r["used"] for r in status["throttle"]}
    served = exported(up, shown["events"])
    returned = served.sum("asb_counted_tokens_returned_total")
    assert served.sum("asb_counted_tokens_total") - returned == shown["tokens"]
    assert served.sum("asb_tasks_ended_total", outcome="completed") == shown["tasks"]["completed"]
    money = f"${shown['today']['cost_nanos'] / 1e9:.4f}"
    assert page.text("#cost-today") == money
    assert f'tokens_used": {shown["tokens"]}' in json.dumps(up.ask("replay", f"--until={log_id}"))


def test_a_share_is_shown_beside_its_whole(up: Up, page: Browser) -> None:
    names = {"unit": "money", "window": "day", "bus": "north", "home": "north"}
    entry = {"type": "policy.changed", "data": {"share": {**names, "whole": 12_000_000_000}}}
    value = json.dumps(entry)
    sent = up.run("redis", "--command=xadd", "--key=asb:intake", f"--value={value}")
    assert sent.returncode == 0, sent.stderr
    page.wait("document.querySelector('.tiles').innerText.includes('of $12.00 of $12.00')")
    page.wait("document.querySelector('.limits').innerText.includes('of $12.00 of $12.00')")
    wait_blocking(lambda: " of $12.00 of $12.00" in up.run("top", "--once").stdout)


def test_any_moment_by_slider_and_by_link(up: Up, page: Browser) -> None:
    page.run(
        "(s => { s.value = 0; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('#slider'))"
    )
    page.wait("document.body.classList.contains('past')")
    page.wait("location.search.startsWith('?at=')")
    first = page.run("location.href")
    page.press("]")
    page.wait(f"location.href != '{first}'")
    named = page.run("location.href")
    page.open(named)
    page.wait("document.querySelector('#state')?.innerText == 'past' && " + SHOWN)
    assert page.run("document.querySelector('#link').href") == named
    assert page.text(".tiles").count("0 done")
    page.press("l")
    page.wait("document.querySelector('#state').innerText == 'live'")
    assert page.run("location.search") == ""
    assert page.errors == []


def test_an_order_needs_the_token_and_hostile_text_is_inert(up: Up, page: Browser) -> None:
    before = tasks(up)
    page.press("s")
    page.wait("document.querySelector('#text')")
    page.run(f"document.querySelector('#text').value = {json.dumps(HOSTILE)}")
    page.click("dialog button[type=submit]")
    page.wait("document.querySelector('#token')")
    page.run("document.querySelector('#token').value = 'a wrong token, long enough'")
    page.click("dialog button[type=submit]")
    page.wait("document.querySelector('.said').innerText.includes('wrong')")
    assert tasks(up) == before
    page.run(f"document.querySelector('#token').value = {json.dumps(token(up))}")
    page.click("dialog button[type=submit]")
    page.wait("document.querySelector('#notice').innerText.includes('submitted')")
    assert tasks(up) == before + 1
    task = re.search(r"\((\S+)\)", page.text("#notice"))
    assert task is not None
    settled(up)
    page.open(f"{address(up)}task/{task[1]}")
    page.wait("document.querySelector('#prompt')?.innerText.includes('onerror')")
    page.wait("document.querySelector('h1').innerText.includes('Task')")
    assert "\\u202e" in page.text("#prompt")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    assert page.run("window.owned") is None
    assert (
        page.run("fetch('/api/order/cancel', {method: 'POST', body: '{}'}).then(r => r.status)")
        == 401
    )
    page.errors[:] = [x for x in page.errors if "401" not in x]
    assert page.errors == []


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<form method=post enctype=text/plain></form>elsewhere")

    def log_message(self, format: str, *args: Any) -> None: ...


@contextlib.contextmanager
def elsewhere() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_rebinding_and_other_sites_are_refused(up: Up, page: Browser) -> None:
    before, where = tasks(up), address(up)
    page.open(where.replace("127.0.0.1", "evil.example"))  # the browser resolves it to loopback
    page.wait("document.body?.innerText.includes('does not go by the name')")
    with elsewhere() as site:
        page.open(site)
        page.wait("document.body?.innerText == 'elsewhere'")
        order = (
            f"fetch('{where}api/order/submit', {{method: 'POST', mode: 'no-cors', body: '{{}}'}})"
        )
        page.run(f"{order}.then(() => 1, () => 1)")
        assert (
            page.run(f"fetch('{where}api/log').then(r => r.status, () => 'refused')") == "refused"
        )
        page.run(
            f"document.forms[0].action = '{where}api/order/submit'; document.forms[0].submit()"
        )
        page.wait("document.body?.innerText.includes('another site')")
    assert tasks(up) == before


def test_the_page_on_a_phone(up: Up, page: Browser) -> None:
    page.size(*PHONE)
    for path in ("", "report", "task/live-1"):
        page.open(address(up) + path)
        page.wait("document.querySelector('main .card h2')")
        assert page.run("document.documentElement.scrollWidth") <= PHONE[0], path
    assert page.errors == []


def test_a_killed_page_comes_back_and_says_what_was_missed(up: Up, page: Browser) -> None:
    page.run("window.stays = 1")
    os.kill(pid_of(up, "service web"), signal.SIGKILL)
    page.wait("document.querySelector('#state').innerText.startsWith('away')")
    assert up.run("submit", "Meanwhile", "--wait").returncode == 0
    page.wait("document.querySelector('#notice').innerText.includes('events meanwhile')", within=40)
    page.wait("document.querySelector('#state').innerText == 'live'")
    assert page.run("window.stays") == 1  # it was not loaded anew


@pytest.mark.timeout(600)
def test_an_engine_killed_while_somebody_watches_is_said_until_one_runs_again(
    tmp_path: Path, chromium: Browser
) -> None:
    with start(tmp_path / "data", free_port()) as server:
        redis = f"--redis={server.url}"
        engine = Process(tmp_path, "service", "engine", redis).says("Ctrl-C stops")
        watching = Process(tmp_path, "service", "web", redis).says("the page: ")
        try:
            found = re.search(r"the page: (http://\S+)", watching.log.read_text())
            assert found is not None
            assert asb("submit", redis, "Before", cwd=tmp_path).returncode == 0
            chromium.size(*DESKTOP)
            chromium.open(found[1])
            chromium.wait(SHOWN)
            chromium.wait("document.querySelector('main').innerText.includes('Before')", within=30)
            assert not chromium.run(NO_ENGINE)
            engine.end()
            chromium.wait(NO_ENGINE, within=40)
            engine = Process(tmp_path, "service", "engine", redis).says("Ctrl-C stops")
            assert asb("submit", redis, "Afterwards", cwd=tmp_path).returncode == 0
            chromium.wait(
                "document.querySelector('main').innerText.includes('Afterwards')", within=30
            )
            chromium.wait(f"!({NO_ENGINE})", within=40)
        finally:
            engine.end()
            watching.end()


def pid_of(up: Up, words: str) -> int:
    """The process of this bus whose command line has these words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words in line and str(up.data) in line:
                return int(path.parent.name)
    raise AssertionError(f"no process {words}")


def test_what_is_forgotten_leaves_the_page(up: Up, page: Browser) -> None:
    up.run("pause", "worker1", "worker2")
    up.run("submit", "a secret plan", "--id", "private-1")
    page.wait("document.querySelector('main').innerText.includes('a secret plan')")
    up.run("cancel", "private-1", "--reason", "a secret reason")
    page.wait("document.querySelector('main').innerText.includes('a secret reason')")
    up.run("forget", "private-1", "--yes")
    page.wait("!document.querySelector('main').innerText.includes('a secret')")
    up.run("resume", "worker1", "worker2")


# -- asb top -------------------------------------------------------------------------------------


class Terminal:
    """`asb top` in a tmux of its own."""

    def __init__(self, up: Up, columns: int, lines: int, *arguments: str) -> None:
        self._socket = f"asb-test-{os.getpid()}"
        program = [*ASB, "top", f"--data-dir={up.data}", *arguments]
        size = ["-x", str(columns), "-y", str(lines)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, *program)

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._socket, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(), check=False
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    @property
    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def shows(self, text: str, within: float = 20) -> str:
        """Wait until it stands on the screen; the screen."""
        wait_blocking(lambda: text in self.screen, within=within, what=f"{text!r}:\n{self.screen}")
        return self.screen

    def ended(self) -> bool:
        return not self._tmux("list-sessions")

    def end(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(up: Up) -> Generator[Any]:
    opened: list[Terminal] = []

    def open_(columns: int, lines: int, *arguments: str) -> Terminal:
        opened.append(Terminal(up, columns, lines, *arguments))
        return opened[-1]

    yield open_
    for each in opened:
        each.end()


def test_top_at_80_columns_shows_scrubs_and_acts(up: Up, terminal: Any) -> None:
    top: Terminal = terminal(80, 24)
    shown = top.shows("WORKERS")
    shown = top.shows("worker1")
    for part in ("live", "money/day", "burn", "queue", "QUEUE", "EVENTS", "Tab panel"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80
    top.press("p")
    top.shows("= worker1")
    top.press("p")
    top.shows("gets tasks again")
    top.press("3", "Enter")
    top.shows("q: back")
    top.press("q", "[")
    top.shows("PAST")
    top.press("l")
    top.shows("live")
    up.run("pause", "worker1", "worker2")
    up.run("submit", "Wait here", "--id", "waits-1")
    top.shows("Wait here")
    top.press("2", "C")
    top.shows("Cancel waits-1?")
    top.press("n")
    top.press("C")
    top.shows("Cancel waits-1?")
    top.press("y")
    top.shows("being cancelled")
    up.run("resume", "worker1", "worker2")
    top.press("q")
    wait_blocking(top.ended, within=10, what="top ends")


def test_top_at_60_columns_and_a_redis_that_is_killed(up: Up, terminal: Any) -> None:
    top: Terminal = terminal(60, 24)
    shown = top.shows("worker1")
    assert max(map(len, shown.splitlines())) <= 60
    with contextlib.closing(SyncClient(up.url)) as client:
        info = client.call("INFO", "server").decode()
    redis = re.search(r"process_id:(\d+)", info)
    assert redis is not None
    assert up.process is not None
    os.kill(up.process.pid, signal.SIGSTOP)  # nobody starts it again meanwhile
    try:
        os.kill(int(redis[1]), signal.SIGKILL)
        top.shows("away: ")
    finally:
        os.kill(up.process.pid, signal.SIGCONT)
    top.shows("events meanwhile", within=40)
    top.shows("live")
    top.press("q")


def test_top_for_programs_says_the_same_twice(up: Up) -> None:
    log_id = settled(up)
    first, second = (up.ask("top", f"--at={log_id}") for _ in range(2))
    assert first == second
    assert first["overview"]["as_of"] == log_id
    once = up.run("top", "--once", f"--at={log_id}")
    assert once.returncode == 0
    assert "PAST" in once.stdout
    assert up.run("top", "--at=never").returncode == 1
