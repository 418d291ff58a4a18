"""The page of the bus: serves what `asb top` shows to a browser, on loopback unless told otherwise.

It folds the log like every reader; while nobody looks it does nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Generator, Sequence
from pathlib import Path

import anyio
import uvicorn

from events.envelope import Event
from projections.state import State
from services.client.bus import Bus
from services.projector import Projector, Setup
from services.runtime.errors import AsbError, ConfigError
from services.runtime.settings import Settings
from services.store.client import SyncClient
from services.web.guard import OWN_NAMES, PageGuard, Rules
from services.web.live import POLL_S, Live
from services.web.pages import Pages

logger = logging.getLogger("asb")

TOKEN_FILE, PORT_FILE = "web-token", "web-port"
TOKEN_LEAST = 16
GRACE_S = 1
DATE_S = 1.0
EVERYWHERE = ("0.0.0.0", "::")


class PageServer(uvicorn.Server):
    """Leaves signals to the host. That cancels it, so nothing is looked for ten times a second."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110 - sets the date of answers
            await anyio.sleep(DATE_S)


class Web(Projector):
    """A projector whose view is a page."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._setup, self._settings = setup, setup.settings
        self._live = Live(self._opened)
        self.port = 0

    @contextlib.contextmanager
    def _opened(self) -> Generator[Bus]:
        with contextlib.closing(SyncClient(self._setup.client.url, self._setup.keys.log)) as client:
            yield Bus(self._settings, client, self._setup.keys)

    def feed(self, events: Sequence[Event], state: State) -> None:
        self._live.feed(events, state)

    def restored(self, state: State) -> None:
        self._live.restored(state)

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: where the page is served."""
        if not self.port:
            return {}
        return {"page": address(self._settings, self.port), "viewers": self._live.viewers}

    async def run(self) -> None:
        """Serve until cancelled. Raises AsbError where it may not, or the port is taken."""
        rules = rules_of(self._settings)
        listening = listen(self._settings)
        self.port = listening.getsockname()[1]
        server = PageServer(self._config(PageGuard(Pages(self._live, self._opened).app(), rules)))
        logger.info("the page: %s", address(self._settings, self.port))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._poll)
                await server.serve(sockets=[listening])
                tasks.cancel_scope.cancel()
        finally:
            self.port = 0
            server.should_exit = server.force_exit = True
            listening.close()

    async def _poll(self) -> None:
        while True:
            await self._live.poll()
            await anyio.sleep(POLL_S)

    def _config(self, app: PageGuard) -> uvicorn.Config:
        chosen = self._settings.web
        return uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            http="h11",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=chosen.tls_certificate or None,
            ssl_keyfile=chosen.tls_key or None,
        )


def rules_of(settings: Settings) -> Rules:
    """Who may ask for what: where others than this machine reach the page, looking needs the token,
    too. Raises ConfigError where they would see it in clear text."""
    chosen = settings.web
    if chosen.token and len(chosen.token) < TOKEN_LEAST:
        raise ConfigError(f"[web] token: at least {TOKEN_LEAST} characters")
    if bool(chosen.tls_certificate) != bool(chosen.tls_key):
        raise ConfigError("[web] tls_certificate and tls_key go together")
    if chosen.is_remote and not (chosen.tls_certificate or chosen.behind_proxy):
        raise ConfigError(
            f"[web] host {chosen.host}: a page that others reach needs TLS",
            hint="[web] tls_certificate and tls_key, or behind_proxy = true where a proxy does it",
        )
    own = {chosen.host.lower()} - set(EVERYWHERE)
    names = OWN_NAMES | own | {name.lower() for name in chosen.names}
    token = chosen.token or token_of(settings.data_dir)
    return Rules(frozenset(names), token, chosen.is_remote)


def token_of(folder: Path) -> str:
    """The token in the data folder; made where there is none, for its owner's eyes only."""
    path = folder / TOKEN_FILE
    with contextlib.suppress(OSError):
        token = path.read_text(encoding="ascii", errors="replace").strip()
        if len(token) >= TOKEN_LEAST:
            return token
    token = secrets.token_urlsafe(24)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token + "\n")
    temporary.replace(path)
    return token


def listen(settings: Settings) -> socket.socket:
    """A socket on the port that is set; else on the last one, the default one, or another.

    Raises AsbError where the port was asked for and is taken.
    """
    chosen = settings.web
    wanted = "web.port" in settings.origins
    before = [] if wanted else last_port(settings.data_dir)
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    for port in (*before, chosen.port, 0):
        listening = socket.socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((chosen.host, port))
            listening.listen(64)
            remember_port(settings.data_dir, listening.getsockname()[1])
            return listening
        except OSError as error:
            listening.close()
            if wanted or not port:
                raise AsbError(
                    f"no page can be served on {chosen.host}:{port}: {error.strerror}",
                    hint="[web] port = 0 takes any free port; `asb up` and `asb doctor` name it",
                ) from error
    raise AssertionError("unreachable")


def last_port(folder: Path) -> list[int]:
    """The port of the page that this folder's bus had last: who has it open finds it again."""
    with contextlib.suppress(OSError, ValueError):
        port = int((folder / PORT_FILE).read_text(encoding="ascii"))
        return [port] if 0 < port < 65536 else []
    return []


def remember_port(folder: Path, port: int) -> None:
    with contextlib.suppress(OSError):
        (folder / PORT_FILE).write_text(f"{port}\n", encoding="ascii")


def address(settings: Settings, port: int) -> str:
    """Where the page is, for a browser on this machine."""
    chosen = settings.web
    scheme = "https" if chosen.tls_certificate else "http"
    host = "127.0.0.1" if chosen.host in EVERYWHERE else chosen.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def projectors(setup: Setup) -> list[Projector]:
    """What `asb service web` runs."""
    return [Web(setup)]
