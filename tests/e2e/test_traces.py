"""Traces as a collector gets them from a bus that people started."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.cli import Up, asb
from tests.wait import wait_blocking

pytestmark = [pytest.mark.timeout(600)]
AGENT = """\
import os, sys
sys.stdin.read()
print(os.environ["TRACEPARENT"])
"""


class Collector:
    """Takes traces on loopback; answers what it is told to, else that all is well."""

    def __init__(self) -> None:
        self.spans: dict[bytes, Span] = {}
        self.answers: deque[int] = deque()
        self.seen: list[tuple[str, str]] = []  # path and Authorization of each request
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.seen.append((self.path, self.headers.get("Authorization", "")))
                status = collector.answers.popleft() if collector.answers else 200
                if status == 200:
                    collector.take(body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            assert resource.resource.attributes[0].value.string_value == "asb"
            for scope in resource.scope_spans:
                self.spans |= {span.span_id: span for span in scope.spans}

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Generator[Collector]:
    running = Collector()
    yield running
    running.end()


@contextlib.contextmanager
def bus(folder: Path, collector: Collector) -> Generator[Up]:
    (folder / "agent.py").write_text(AGENT)
    (folder / "asb.toml").write_text(
        f'[traces]\nendpoint = "{collector.url}/"\nheaders = "Authorization=Bearer OPENSESAME"\n'
    )
    up = Up(folder, "--workers=1", "--", sys.executable, str(folder / "agent.py")).start()
    try:
        wait_blocking(
            lambda: up.run("service", "traces", "--check").returncode == 0,
            within=60,
            what="traces are told",
        )
        yield up
    finally:
        up.end()


def test_a_task_arrives_whole_and_its_agent_knew_its_span(
    tmp_path: Path, collector: Collector
) -> None:
    collector.answers += [503, 429]  # comes again
    with bus(tmp_path, collector) as up:
        done = up.run("submit", "--wait", "say where you belong")
        assert done.returncode == 0, done.stderr
        wait_blocking(lambda: len(collector.spans) >= 3, within=60, what="three spans")
        shown = up.run("config").stdout
    assert not collector.answers
    assert set(collector.seen) == {("/v1/traces", "Bearer OPENSESAME")}
    named = {span.name: span for span in collector.spans.values()}
    task, attempt, decision = named["task"], named["attempt"], named["decision"]
    assert attempt.parent_span_id == decision.parent_span_id == task.span_id
    said = f"00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01"
    assert said in done.stdout
    assert task.start_time_unix_nano == decision.start_time_unix_nano
    assert decision.end_time_unix_nano == attempt.start_time_unix_nano
    assert attempt.start_time_unix_nano < attempt.end_time_unix_nano == task.end_time_unix_nano
    assert "OPENSESAME" not in shown


def test_what_a_collector_refuses_for_good_is_not_sent_again(
    tmp_path: Path, collector: Collector
) -> None:
    collector.answers.append(400)
    with bus(tmp_path, collector) as up:
        assert up.run("submit", "--wait", "first").returncode == 0
        wait_blocking(lambda: not collector.answers, within=60, what="it was refused")
        assert up.run("submit", "--wait", "second").returncode == 0
        wait_blocking(lambda: len(collector.spans) >= 3, within=60, what="the second's spans")
        assert "traces are not taken" in up.said
    assert len({span.trace_id for span in collector.spans.values()}) == 1


def test_without_a_collector_the_service_says_what_it_needs(tmp_path: Path, redis_url: str) -> None:
    done = asb("service", f"--redis={redis_url}", "traces", cwd=tmp_path)
    assert done.returncode == 1
    assert "[traces] endpoint is not set" in done.stderr
    assert "ASB_TRACES_ENDPOINT" in done.stderr
