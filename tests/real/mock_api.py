"""The model APIs of Anthropic, OpenAI and Google, as far as the agents' programs use them.

It answers on loopback and keeps account of what it served: the tokens of each answer, by model.
What it does stands in the first words a user says (see ``PLAY``); a tool call is answered first,
the text once the request holds the tool's result.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from events.tokens import TokenParts

Json = dict[str, Any]
PLAY = (
    "ASK-TOOL",
    "USE-TOOL",
    "TOOL-STALL",
    "SUBAGENT",
    "BREAK",
    "REFUSE-429",
    "REFUSE-401",
    "REFUSE-400",
    "LIMITED",
    "HANG",
)
TOOLS = ("ASK-TOOL", "USE-TOOL", "BREAK", "TOOL-STALL")  # a tool is called first
OWN_WORDS = ("<system-reminder", "<task-notification")  # what an agent adds itself
WINDOW_S = 20  # how long a subscription stays limited once LIMITED was asked for
SERVED = TokenParts(11, 42, 17_000, 1_300)  # of each answer of Anthropic's
SERVED_OPENAI = TokenParts(400, 50, 600)
SERVED_GEMINI = TokenParts(500, 40, 400)


class Mock:
    """A server with its account; ``served`` holds a model and its tokens for each answer."""

    def __init__(self) -> None:
        self.served: list[tuple[str, TokenParts]] = []
        self.requests: list[str] = []
        self.prompts: list[str] = []
        self.refused = 0
        self.resets = 0  # when the subscription's window ends (seconds since 1970); 0: no limit yet
        self.logs: list[Json] = []
        self.hanging = threading.Event()
        self.let_go = threading.Event()
        mock = self

        class Handler(_Handler):
            @property
            def mock(self) -> Mock:
                return mock

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Mock:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def by_model(self) -> dict[str, TokenParts]:
        """What was served in all."""
        sums: dict[str, TokenParts] = {}
        for model, parts in self.served:
            sums[model] = sums.get(model, TokenParts()).plus(parts)
        return sums


def _events(lines: list[Json], *, named: bool = True) -> Iterator[bytes]:
    for line in lines:
        head = f"event: {line['type']}\n" if named else ""
        yield f"{head}data: {json.dumps(line)}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def mock(self) -> Mock:
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test reads the account instead."""

    def do_GET(self) -> None:
        self.mock.requests.append(f"GET {self.path}")
        self._json(200, {"data": [], "models": []})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body: Any = json.loads(self.rfile.read(length) or b"{}")
        self.mock.requests.append(f"POST {self.path}")
        path = self.path.partition("?")[0]
        if path == "/v1/messages":
            self._anthropic(cast("Json", body))
        elif path.endswith("/responses"):
            self._openai(cast("Json", body))
        elif "generateContent" in path.lower() or "GenerateContent" in path:
            self._gemini(cast("Json", body), path)
        else:
            self._json(200, {"input_tokens": 10})

    # -- the wire --------------------------------------------------------------------------------

    def _json(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("request-id", f"req_{uuid.uuid4().hex[:24]}")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, lines: list[Json], *, named: bool = True, hang_after: int = 0) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.send_header("request-id", f"req_{uuid.uuid4().hex[:24]}")
        self.end_headers()
        self.close_connection = True
        for n, event in enumerate(_events(lines, named=named), 1):
            self.wfile.write(event)
            self.wfile.flush()
            if n == hang_after:
                self.mock.hanging.set()
                self.mock.let_go.wait(120)
                return

    def _refusal(self, play: str, text: str, *, after_tool: bool) -> int:
        self.mock.prompts.append(text)
        status = int(play.rpartition("-")[2]) if play.startswith("REFUSE") else 0
        if play == "BREAK" and after_tool:
            status = 500
        self.mock.refused += bool(status)
        return status

    def _stalls(self, play: str, after_tool: bool) -> bool:
        """Whether no answer came: the second call waits until the test lets it go."""
        if play != "TOOL-STALL" or not after_tool:
            return False
        self.mock.hanging.set()
        self.mock.let_go.wait(120)
        self.close_connection = True
        return True

    # -- Anthropic -------------------------------------------------------------------------------

    def _anthropic(self, body: Json) -> None:
        messages = cast("list[Json]", body.get("messages", []))
        asked = _asked(messages)
        text = _texts(messages[asked].get("content")) if messages else ""
        after_tool = "tool_result" in json.dumps(messages[asked:])
        play = _play(text)
        if play == "LIMITED" and self._limited(text):
            return
        if status := self._refusal(play, text, after_tool=after_tool):
            kinds = {429: "rate_limit_error", 401: "authentication_error", 500: "api_error"}
            kind = kinds.get(status, "invalid_request_error")
            self._json(status, {"type": "error", "error": {"type": kind, "message": "mock"}})
            return
        model = str(body.get("model"))
        piece: Json = {"type": "text", "text": f"Answer to {text[-20:]}"}
        if self._stalls(play, after_tool):
            return
        if play in TOOLS and not after_tool:
            command = "touch asked.txt" if play == "ASK-TOOL" else "echo hi"
            piece = _tool("Bash", {"command": command, "description": "Say hi"})
        elif play == "SUBAGENT" and "SUBTASK" not in text and not after_tool:
            piece = _tool("Agent", {
                "description": "Small job", "prompt": "SUBTASK count to one",
                "subagent_type": "general-purpose", "run_in_background": False})  # fmt: skip
        hang = 2 if play == "HANG" else 0
        if not hang:
            self.mock.served.append((model, SERVED))
        self._stream(_anthropic_events(model, piece), hang_after=hang)

    def _limited(self, text: str) -> bool:
        """Whether the subscription's window is used up, which its headers say."""
        now = time.time()
        self.mock.resets = self.mock.resets or int(now) + WINDOW_S
        if now >= self.mock.resets:
            return False
        self.mock.prompts.append(text)
        self.mock.refused += 1
        name = "anthropic-ratelimit-unified"
        headers = {
            f"{name}-status": "rejected", f"{name}-reset": str(self.mock.resets),
            f"{name}-representative-claim": "five_hour", f"{name}-5h-status": "rejected",
            f"{name}-5h-reset": str(self.mock.resets), f"{name}-5h-utilization": "1.0"}  # fmt: skip
        error = {"type": "rate_limit_error", "message": "mock"}
        self._json(429, {"type": "error", "error": error}, headers)
        return True

    # -- OpenAI ----------------------------------------------------------------------------------

    def _openai(self, body: Json) -> None:
        items = cast("list[Json]", body.get("input", []))
        said = [_texts(i.get("content")) for i in items if i.get("role") == "user"]
        text = next((t for t in said if _play(t)), said[-1] if said else "")
        after_tool = any("output" in str(i.get("type")) for i in items)
        play = _play(text)
        if status := self._refusal(play, text, after_tool=after_tool):
            self._json(status, {"error": {"message": f"mock {status}", "type": "mock"}})
            return
        item: Json = {
            "type": "message", "role": "assistant", "id": "m1",
            "content": [{"type": "output_text", "text": f"Answer to {text[-20:]}"}]}  # fmt: skip
        if self._stalls(play, after_tool):
            return
        if play in TOOLS and not after_tool:
            item = {"type": "function_call", "call_id": "c1", "name": "exec_command",
                    "arguments": json.dumps({"cmd": "echo hi"})}  # fmt: skip
        usage: Json = {
            "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 600},
            "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 1050}  # fmt: skip
        response = f"resp_{uuid.uuid4().hex[:24]}"
        lines: list[Json] = [
            {"type": "response.created", "response": {"id": response}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"id": response, "usage": usage}},
        ]
        hang = 1 if play == "HANG" else 0
        if not hang:
            self.mock.served.append((str(body.get("model")), SERVED_OPENAI))
        self._stream(lines, hang_after=hang)

    # -- Google ----------------------------------------------------------------------------------

    def _gemini(self, body: Json, path: str) -> None:
        contents = cast("list[Json]", body.get("contents", []))
        texts = [_texts(c.get("parts")) for c in contents if c.get("role") == "user"]
        text = next((t for t in texts if _play(t)), texts[-1] if texts else "")
        after_tool = "functionResponse" in json.dumps(contents)
        model = path.rpartition("/")[2].partition(":")[0]
        play = _play(text)
        if status := self._refusal(play, text, after_tool=after_tool):
            self._json(status, {"error": {"code": status, "message": f"mock {status}"}})
            return
        part: Json = {"text": f"Answer to {text[-20:]}"}
        if self._stalls(play, after_tool):
            return
        if play in TOOLS and not after_tool:
            part = {"functionCall": {"name": "list_directory", "args": {"dir_path": "."}}}
        answer: Json = {
            "candidates": [{"content": {"role": "model", "parts": [part]},
                            "finishReason": "STOP", "index": 0}],
            "usageMetadata": {
                "promptTokenCount": 900, "candidatesTokenCount": 30, "totalTokenCount": 940,
                "cachedContentTokenCount": 400, "thoughtsTokenCount": 10},
            "modelVersion": model, "responseId": "r1"}  # fmt: skip
        if play == "HANG":
            self.mock.hanging.set()
            self.mock.let_go.wait(120)
            return
        self.mock.served.append((model, SERVED_GEMINI))
        if "stream" in path:
            self._stream([answer], named=False)
        else:
            self._json(200, answer)


def _tool(name: str, arguments: Json) -> Json:
    return {"type": "tool_use", "id": f"toolu_{name.lower()}", "name": name, "input": arguments}


def _anthropic_events(model: str, piece: Json) -> list[Json]:
    usage = {"input_tokens": 11, "cache_creation_input_tokens": 1_300,
             "cache_read_input_tokens": 17_000, "output_tokens": 1}  # fmt: skip
    whole: Json = {"id": f"msg_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant",
                   "model": model, "content": [], "stop_reason": None, "usage": usage}  # fmt: skip
    tool = piece["type"] == "tool_use"
    begun: Json = {**piece, "input": {}} if tool else {"type": "text", "text": ""}
    delta: Json = (
        {"type": "input_json_delta", "partial_json": json.dumps(piece["input"])}
        if tool
        else {"type": "text_delta", "text": piece["text"]}
    )
    reason = "tool_use" if tool else "end_turn"
    return [
        {"type": "message_start", "message": whole},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
         "usage": {**usage, "output_tokens": 42}},
        {"type": "message_stop"},
    ]  # fmt: skip


def _texts(content: Any) -> str:
    """All the text in what a message holds."""
    if isinstance(content, str):
        return content
    pieces = cast("list[Json]", content) if isinstance(content, list) else []
    return "\n".join(str(piece.get("text", "")) for piece in pieces)


def _asked(messages: list[Json]) -> int:
    """The message in which a person asked last: a session has many, and agents add their own."""
    for n in range(len(messages) - 1, 0, -1):
        content = messages[n].get("content")
        pieces = [content] if isinstance(content, str) else cast("list[Any]", content or [])
        texts = [piece if isinstance(piece, str) else _texts([piece]) for piece in pieces]
        asked = any(text and not text.lstrip().startswith(OWN_WORDS) for text in texts)
        if asked and messages[n].get("role") == "user":
            return n
    return 0


def _play(text: str) -> str:
    return next((word for word in PLAY if word in text), "")
