"""The README's pictures, from a real run: `make pictures` writes them to ops/pictures.

A bus, its page and six workers of three agents run for half a minute on a Redis of their own; the
agents are the demonstration's, which invent their work and say so. Then a browser looks at the
page, and `asb top` draws its screen.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import tempfile
from pathlib import Path

import anyio
import anyio.to_thread

from events.keys import Keys
from services.assembly import SERVICES
from services.cli.demo_tasks import submissions
from services.client.bus import Bus
from services.client.orders import pause, submit
from services.running.bus import hosted
from services.runtime.settings import Settings, load
from services.store.client import Client, SyncClient
from services.store.heartbeat import beats
from services.top.app import Top
from services.worker import WorkerOptions, serve
from services.worker.drivers.simulated import SimulatedDriver
from tests.browser import DESKTOP, PHONE, browser
from tests.servers import RedisServer
from tests.wait import wait_until

FOLDER = Path(__file__).resolve().parent.parent / "ops" / "pictures"
WORKERS = (
    ("atlas", "codex", "sonnet"), ("birch", "codex", "sonnet"), ("cedar", "claude", "haiku"),
    ("delta", "claude", "sonnet"), ("ember", "comet", "haiku"), ("fjord", "", ""),
)  # fmt: skip
TASKS, DONE = 70, 40  # submitted, and done when the pictures are taken
TOP_SIZE = (100, 32)


async def run() -> None:
    """Let the bus work for a while, and take the pictures while it does."""
    with tempfile.TemporaryDirectory(prefix="asb-pictures-") as folder:
        server = RedisServer(Path(folder, "redis")).start()
        try:
            data = Path(folder, "data")
            settings = load({"redis_url": server.url, "data_dir": data, "web.port": 0}, environ={})
            async with hosted(settings, server.url, (*SERVICES, "web")):
                await _work(settings, server.url)
        finally:
            server.stop()


async def _work(settings: Settings, url: str) -> None:
    client, stop = Client(url), anyio.Event()
    keys = Keys(settings.namespace)
    try:
        async with anyio.create_task_group() as workers:
            for name, agent, model in WORKERS:
                options = WorkerOptions(
                    name=name,
                    driver=SimulatedDriver(speed=0.25),
                    agent=agent or None,
                    models=(model,) if model else (),
                    grace_s=0.1,
                )
                workers.start_soon(functools.partial(serve, options, keys, client, stop=stop))
            await anyio.to_thread.run_sync(_submit, settings, url)
            await wait_until(lambda: _done(settings, url) >= DONE, within=300, what="they work")
            await anyio.to_thread.run_sync(_page_pictures, await _address(url, keys))
            await _top_picture(settings)
            stop.set()
            workers.cancel_scope.cancel()
    finally:
        await client.close()


def _submit(settings: Settings, url: str) -> None:
    bus = Bus(settings, SyncClient(url), Keys(settings.namespace))
    with contextlib.closing(bus.client):
        for task in submissions(TASKS):
            submit(bus, task)
        pause(bus, "fjord")


def _done(settings: Settings, url: str) -> int:
    bus = Bus(settings, SyncClient(url), Keys(settings.namespace))
    with contextlib.closing(bus.client):
        return bus.state().meta.completed


async def _address(url: str, keys: Keys) -> str:
    def listening() -> str:
        with contextlib.closing(SyncClient(url)) as client:
            pages = [beat.figures.get("page", "") for beat in beats(client, keys)]
        return next((page for page in pages if page), "")

    return await wait_until(listening, within=20, what="the page listens")


def _page_pictures(address: str) -> None:
    with browser() as page:
        for name, size, dark in (
            ("page", DESKTOP, False),
            ("page-dark", DESKTOP, True),
            ("phone", PHONE, False),
        ):
            page.size(*size, dark=dark)
            page.open(address)
            page.wait("document.querySelector('.tiles .big')")
            page.run("new Promise(done => setTimeout(done, 1500))")
            page.picture(FOLDER / f"{name}.webp")


async def _top_picture(settings: Settings) -> None:
    """The screen as textual draws it, through the browser: an SVG of it would ask for fonts."""
    top = Top(settings, None)
    async with top.run_test(size=TOP_SIZE) as pilot:
        await wait_until(lambda: "WORKERS" in _plain(top) and "atlas" in _plain(top), within=10)
        await pilot.pause(1.0)
        drawn = top.export_screenshot(title="asb top")
    drawn = re.sub(r"@font-face\s*\{.*?\}", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono")
    await anyio.to_thread.run_sync(_draw, drawn)


def _plain(top: Top) -> str:
    return re.sub(r"<[^>]+>", " ", top.export_screenshot())


def _draw(svg: str) -> None:
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        file = Path(folder, "top.svg")
        file.write_text(svg, encoding="utf-8")
        page.size(int(float(size[1])), int(float(size[2])))
        page.open(file.as_uri())
        page.run("new Promise(done => setTimeout(done, 500))")
        page.picture(FOLDER / "top.webp")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    anyio.run(run)
    for path in sorted(FOLDER.iterdir()):
        sys.stdout.write(f"{path.name}  {path.stat().st_size // 1024} kB\n")


if __name__ == "__main__":
    main()
