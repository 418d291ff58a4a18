"""A real browser, headless, driven by its own protocol (CDP) over one WebSocket."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.wait import wait_blocking

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1280, 800), (390, 844)
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--no-first-run",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
    "--remote-debugging-port=0",
)
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


class Browser:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._session = ""
        self.errors: list[str] = []  # what the page complained of: exceptions and refused content
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """One command and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            reply = json.loads(self._socket.recv(timeout=20))
            if reply.get("id") == self._number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            self._hear(reply)

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            said = details.get("exception", {}).get("description")
            self.errors.append(str(said or details["text"]))
        elif message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error" and entry["source"] in ("security", "javascript"):
                self.errors.append(entry["text"])

    def size(self, width: int, height: int, scale: int = 1, *, dark: bool = False) -> None:
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=mobile,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, once it is kept."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str, within: float = 15) -> Any:
        """Wait until an expression is true in the page."""
        wait_blocking(lambda: self.run(f"Boolean({script})"), within=within, what=script)
        return self.run(script)

    def text(self, selector: str = "body") -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code, text = KEYS.get(key, (ord(key.upper()[0]), key))
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot (png, webp), of what is in the window or of the ``whole`` page."""
        kind = path.suffix.removeprefix(".")
        quality = {} if kind == "png" else {"quality": 70}
        shot = self.call(
            "Page.captureScreenshot", format=kind, captureBeyondViewport=whole, **quality
        )
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser() -> Generator[Browser]:
    """A browser with a profile of its own; skips where none is installed."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here: apt install chromium")
    with tempfile.TemporaryDirectory(prefix="asb-browser-", ignore_cleanup_errors=True) as profile:
        log = Path(profile, "log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [program, *OPTIONS, f"--user-data-dir={profile}/profile", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield from _page(process, log)
        finally:
            process.kill()
            process.wait()


def _page(process: subprocess.Popen[bytes], log: Path) -> Generator[Browser]:
    def address() -> str:
        assert process.poll() is None, log.read_text(errors="replace")
        match = re.search(r"ws://\S+", log.read_text(errors="replace"))
        return match[0] if match else ""

    wait_blocking(address, within=30, what="the browser listens")
    with connect(address(), max_size=64 * 1024 * 1024) as socket:
        yield Browser(socket)
