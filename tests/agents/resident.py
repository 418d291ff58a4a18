"""An agent that lives in a terminal and plays Claude Code there (2.1.330), standard library only.

It reads raw input with bracketed pastes, redraws its screen, wraps long pastes, makes four blanks
of tabs, keeps a state file and a transcript, and calls the hooks of the settings it was given.
What a turn is stands in its prompt, ``play NAME``: ``slow`` (until Escape, or until
the file ``SLOW_UNTIL`` is there), ``mute`` (no answer comes), ``ask`` (waits for a permission),
``limit``, ``overloaded``, ``die``, ``agents`` (a subagent at work), ``calls N``, ``compact`` (a
call that only telemetry tells of), ``report`` (a background task makes it go on). A prompt that
begins with ``/`` is lost or clears the conversation, one with ``!`` goes to a shell, ``@name``
reads a file: as seen.
``RESIDENT_LOG`` names a file to which each start, prompt and answer is written; ``STEP_S``: seconds
of a call of ``calls``; ``RESIDENT_DEAF``: seconds before Enter is taken after a paste;
``RESIDENT_UNNAMED``: its transcript does not name requests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import termios
import time
import tty
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MODEL = "claude-opus-5-5"
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 1000,
    "output_tokens": 40,
}
COUNTED = 150  # tokens of one call
RESETS_AT = 4_000_000_000
MUTE_S = 30.0
WORK_S = 0.5  # at what was permitted: longer than between two looks at its files
Json = dict[str, Any]


class Resident:
    def __init__(self, arguments: list[str]) -> None:
        home = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
        self.home, self.arguments = home, arguments
        self.session = self._option("--resume") or str(uuid.uuid4())
        settings = self._option("--settings")
        self.hooks: Json = json.loads(Path(settings).read_text())["hooks"] if settings else {}
        self.queue: list[str] = []
        self.file = home / "sessions" / f"{os.getpid()}.json"
        self.keys, self.box, self.unanswered = b"", "", ""
        self.stash = ""  # a draft that Ctrl-S took out of the box, until the next prompt
        self.deaf_until = 0.0
        self.prompt_id = ""

    def _option(self, name: str) -> str:
        return self.arguments[self.arguments.index(name) + 1] if name in self.arguments else ""

    # -- what it keeps and says ----------------------------------------------------------------

    @property
    def transcript(self) -> Path:
        return self.home / "projects" / "-work" / f"{self.session}.jsonl"

    def say(self, **entry: Any) -> None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.transcript.parent.mkdir(parents=True, exist_ok=True)
        with self.transcript.open("a") as file:
            file.write(json.dumps({**entry, "timestamp": now, "sessionId": self.session}) + "\n")

    def status(self, status: str, **more: str) -> None:
        start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        content = {
            "pid": os.getpid(), "sessionId": self.session, "procStart": start, "status": status,
            "statusUpdatedAt": int(time.time() * 1000), "kind": "interactive", **more,
        }  # fmt: skip
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(content))

    def hook(self, event: str, **fields: Any) -> bool:
        """Whether it goes on: a tool's hook ends by Escape, too."""
        entry = {
            "session_id": self.session, "transcript_path": str(self.transcript),
            "hook_event_name": event, "prompt_id": self.prompt_id, **fields,
        }  # fmt: skip
        for matcher in self.hooks.get(event, []):
            for each in matcher["hooks"]:
                process = subprocess.Popen(["sh", "-c", each["command"]], stdin=subprocess.PIPE)
                with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
                    process.communicate(json.dumps(entry).encode(), 1.0 if "Tool" in event else 30)
                if process.poll() is None:
                    self.log(held=event)
                while process.poll() is None:
                    if self.interrupted(0.1):
                        process.kill()
                        return False
        return True

    def log(self, **entry: Any) -> None:
        with contextlib.suppress(KeyError), open(os.environ["RESIDENT_LOG"], "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "session": self.session, **entry}) + "\n")

    def draw(self, box: str) -> None:
        shown = box if box.count("\n") < 4 else f"[Pasted text +{box.count(chr(10))} lines]"
        sys.stdout.write(f"\x1b[2J\x1b[H────\r\n❯\u00a0{shown[:60]}\r\n────\r\n")
        sys.stdout.flush()

    # -- its input -----------------------------------------------------------------------------

    def read(self, within: float) -> bytes:
        """What was typed within this time; "" for nothing."""
        if select.select([0], [], [], within)[0]:
            return os.read(0, 65536)
        return b""

    def run(self) -> None:
        self.log(start=self.arguments, cwd=os.getcwd())
        before = termios.tcgetattr(0)
        tty.setraw(0)
        sys.stdout.write("\x1b[?2004h")
        self.hook("SessionStart", source="resume" if self._option("--resume") else "startup")
        self.status("idle")
        try:
            self.serve()
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            self.file.unlink(missing_ok=True)
            self.hook("SessionEnd")

    def serve(self) -> None:
        self.draw(self.box)
        while True:
            self.keys += self.read(0.2)
            while self.keys and (key := self.next_key()):
                if key == b"\r" and time.monotonic() >= self.deaf_until:
                    prompt, self.box = self.box, ""
                    if prompt:
                        self.box, self.stash = self.stash, ""
                    if prompt and not self.submitted(prompt):
                        return
                    while self.queue:
                        self.turn(self.queue.pop(0))
                elif key == b"\x03":
                    self.box = ""
                elif key == b"\x13" and (self.box or self.stash):
                    self.box, self.stash = ("", self.box) if self.box else (self.stash, "")
                elif key >= b" ":
                    self.box += key.decode("utf-8", "replace")
            self.draw(self.box)

    def next_key(self) -> bytes:
        """One key; a whole paste goes into the box. "" for half a paste."""
        if self.keys.startswith(b"\x1b[200~"):
            end = self.keys.find(b"\x1b[201~")
            if end < 0:
                return b""
            self.box += self.pasted(self.keys[6:end])
            self.keys = self.keys[end + 6 :]
            self.deaf_until = time.monotonic() + float(os.environ.get("RESIDENT_DEAF", "0"))
            return b"\0"
        key, self.keys = self.keys[:1], self.keys[1:]
        return key

    @staticmethod
    def pasted(data: bytes) -> str:
        text = data.decode("utf-8", "replace").replace("\r", "\n").replace("\t", "    ")
        text = text.removesuffix("\n")
        if text.count("\n") >= 3 or len(text) > 800:
            return f'\n\n<pasted_content id="9252">\n{text}\n</pasted_content id="9252">\n'
        return text

    def submitted(self, prompt: str) -> bool:
        """A prompt, or what is none. False where it ends the agent."""
        if prompt.strip() == "/exit":
            return False
        if prompt.strip() == "/clear":
            self.session = str(uuid.uuid4())
            self.hook("SessionStart", source="clear")
            self.status("idle")
        elif prompt.startswith("/"):
            self.log(lost=prompt)
        elif prompt.startswith("!"):
            subprocess.run(["sh", "-c", prompt[1:]], check=False)
        else:
            for name in re.findall(r"(?<!\S)@(\S+)", prompt):
                self.log(read_file=name)
            self.turn(prompt)
        return True

    # -- turns ---------------------------------------------------------------------------------

    def turn(self, prompt: str) -> None:
        self.prompt_id, self.unanswered = str(uuid.uuid4()), prompt
        self.hook("UserPromptSubmit", prompt=prompt)
        self.status("busy")
        self.log(prompt=prompt)
        self.say(
            type="user", promptId=self.prompt_id, uuid=str(uuid.uuid4()),
            message={"role": "user", "content": prompt}, origin={"kind": "human"},
        )  # fmt: skip
        words = prompt.split()
        part = words[words.index("play") + 1] if "play" in words else "well"
        getattr(self, f"play_{part}", self.play_well)(prompt)

    def answer(self, text: str, *, call: str = "", stop: str = "end_turn") -> None:
        name = call or f"msg_{uuid.uuid4().hex[:12]}"
        request = f"req_{uuid.uuid4().hex[:12]}"
        self.unanswered = ""
        for n, piece in enumerate((text[: len(text) // 2], text)):
            usage = {**USAGE, "output_tokens": 40 if n else 1}
            content = [{"type": "text", "text": piece}]
            message = {"id": name, "model": MODEL, "role": "assistant", "usage": usage,
                       "content": content, "stop_reason": stop}  # fmt: skip
            named = {} if "RESIDENT_UNNAMED" in os.environ else {"requestId": request}
            self.say(type="assistant", message=message, **named)
        self.tell(request)

    def tell(self, request: str) -> None:
        """A call, by telemetry; nothing where nobody receives it."""
        url = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if not url:
            return
        fields: Json = {
            "event.name": "api_request", "session.id": self.session, "request_id": request,
            "prompt.id": self.prompt_id, "model": MODEL, "input_tokens": 10, "output_tokens": 40,
            "cache_read_tokens": 1000, "cache_creation_tokens": 100,
        }  # fmt: skip
        attributes = [
            {"key": key, "value": {"intValue" if isinstance(value, int) else "stringValue": value}}
            for key, value in fields.items()
        ]
        logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": attributes}]}]}]}
        post = urllib.request.Request(
            f"{url}/v1/logs", json.dumps(logs).encode(), {"Content-Type": "application/json"}
        )
        with contextlib.suppress(OSError):
            urllib.request.urlopen(post, timeout=5).close()

    def done(self, text: str) -> None:
        self.hook("Stop", last_assistant_message=text, background_tasks=[])
        self.say(type="system", subtype="turn_duration", durationMs=1)
        self.status("idle")
        self.log(answered=time.time())

    def play_well(self, prompt: str) -> None:
        text = f"Did: {len(prompt)} characters."
        self.answer(text)
        self.done(text)

    def play_compact(self, prompt: str) -> None:
        self.tell(f"req_{uuid.uuid4().hex[:12]}")
        self.play_well(prompt)

    def play_report(self, prompt: str) -> None:
        notice = "<task-notification>\n<task-id>1</task-id>\n</task-notification>"
        self.say(type="queue-operation", operation="enqueue", content=notice)
        self.play_well(prompt)
        if not self.interrupted(0.5):
            self.say(type="queue-operation", operation="dequeue")
            origin = {"kind": "task-notification"}
            self.say(type="user", message={"role": "user", "content": notice}, origin=origin)
            self.status("busy")
            self.play_well("It is counted.")

    def play_calls(self, prompt: str) -> None:
        words = prompt.split()
        for n in range(int(words[words.index("calls") + 1])):
            if self.interrupted(float(os.environ.get("STEP_S", "0"))):
                return
            self.log(step=n)
            self.answer(f"Step {n}.", stop="tool_use")
            if not (self.hook("PreToolUse") and self.hook("PostToolUse")):
                return
            self.say(type="user", message={"role": "user", "content": [{"type": "tool_result"}]})
        self.play_well(prompt)

    def play_agents(self, prompt: str) -> None:
        folder = self.transcript.parent / self.session / "subagents"
        folder.mkdir(parents=True, exist_ok=True)
        own, self.transcript_of_subagent = self.session, folder / "agent-1.jsonl"
        name = f"msg_{uuid.uuid4().hex}"
        message: Json = {"id": name, "model": "claude-haiku-5-5", "usage": USAGE,
                         "content": [], "stop_reason": "end_turn"}  # fmt: skip
        now = datetime.now(UTC).isoformat()
        line = {"type": "assistant", "isSidechain": True, "sessionId": own, "timestamp": now}
        with self.transcript_of_subagent.open("a") as file:
            file.write(json.dumps({**line, "message": message}) + "\n")
        self.play_well(prompt)

    def interrupted(self, within: float, also: bytes = b"") -> bytes:
        """The key that ends the wait: Escape, or one of ``also``; "" at the end of the time."""
        until = time.monotonic() + within
        box = b""
        while time.monotonic() < until:
            typed = self.read(0.05)
            box += typed
            if typed.startswith(b"\x1b") and not typed.startswith(b"\x1b["):
                content = [{"type": "text", "text": "[Request interrupted by user]"}]
                self.say(type="user", promptId=self.prompt_id, message={"content": content})
                self.status("idle")
                self.box = self.box or self.unanswered  # as it was typed
                self.log(interrupted=time.time())
                return b"\x1b"
            if b"\r" in typed and also == b"\r":
                return b"\r"
            if b"\r" in box and not also:
                pasted = re.sub(rb"\x1b\[20[01]~", b"", box.removesuffix(b"\r"))
                if pasted:  # Enter alone is none
                    self.queue.append(self.pasted(pasted))
                box = b""
        return b""

    def play_slow(self, prompt: str) -> None:
        self.answer("Working on it.", stop="tool_use")
        while not Path(os.environ["SLOW_UNTIL"]).exists():
            if self.interrupted(0.1):
                return
        self.play_well(prompt)

    def play_mute(self, prompt: str) -> None:
        self.interrupted(MUTE_S)

    def play_stubborn(self, prompt: str) -> None:
        self.answer("Not to be stopped.", stop="tool_use")
        until = time.monotonic() + MUTE_S
        while time.monotonic() < until:
            self.read(0.5)

    def play_ask(self, prompt: str) -> None:
        self.answer("I will make a file.", stop="tool_use")
        self.hook("PermissionRequest", tool_name="Bash")
        self.status("waiting", waitingFor="permission prompt")
        if self.interrupted(60, b"\r") == b"\r":
            self.status("busy")
            if not self.interrupted(WORK_S):
                self.play_well(prompt)

    def failed(self, text: str, error: str, status: int, **more: Any) -> None:
        self.hook("StopFailure", error=error, last_assistant_message=text)
        message = {"model": "<synthetic>", "content": [{"type": "text", "text": text}]}
        self.say(type="assistant", message=message, isApiErrorMessage=True, error=error,
                 apiErrorStatus=status, **more)  # fmt: skip
        self.status("idle")

    def play_limit(self, prompt: str) -> None:
        text = "You've hit your 5-hour limit · resets 7:31am (UTC)"
        self.failed(text, "rate_limit", 429, quotaLimits={"resetsAt": RESETS_AT})
        if not self.interrupted(5):
            self.log(continued=prompt)

    def play_overloaded(self, prompt: str) -> None:
        self.failed("API Error: Repeated 529 Overloaded errors.", "server_error", 529)

    def play_die(self, prompt: str) -> None:
        self.answer("Last words.", stop="tool_use")
        os.kill(os.getpid(), 9)


if __name__ == "__main__":
    Resident(sys.argv[1:]).run()
