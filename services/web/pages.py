"""What the page asks for: itself, the stream of what goes on, past moments, tasks, reports; and the
orders of a person. Nothing is decided here, and every text goes out as data."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from importlib import resources
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from projections import report_views
from projections.format import first_line
from services.client import orders
from services.client.bus import Bus
from services.queries.figures import savings
from services.queries.moment import Moment, moment, step
from services.queries.overview import plain
from services.queries.reports import (
    period_of,
    report_facts,
    report_figures,
    report_standing,
    report_texts,
)
from services.queries.watching import past, task_at
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable, Refused
from services.web.guard import Denial
from services.web.live import Live, OpenedBus

FRAME_S = 0.5  # at most two pictures a second
STILL_S = 10.0  # without news a stream says that it is still there
FILES = {
    "app.js": "text/javascript",
    "views.js": "text/javascript",
    "plots.js": "text/javascript",
    "stream.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
FIELDS = ("text", "priority", "kind", "agent", "model", "worker", "project")


class Pages:
    """The routes, over one bus. ``opened`` gives a bus to a thread that asks it."""

    def __init__(self, live: Live, opened: OpenedBus) -> None:
        self._live, self._opened = live, opened
        # Folding the past takes a core for a moment: one at a time, and what a person does goes by.
        self._folding, self._asking = anyio.CapacityLimiter(1), anyio.CapacityLimiter(8)
        static = resources.files("services.web") / "static"
        self._shell = (static / "index.html").read_bytes()
        self._files = {name: (static / name).read_bytes() for name in FILES}

    def app(self) -> Starlette:
        """The application, without its guard."""
        get, post = ["GET"], ["POST"]
        return Starlette(
            routes=[
                Route("/", self._page, methods=get),
                Route("/task/{task:path}", self._page, methods=get),
                Route("/report", self._page, methods=get),
                Route("/static/{name}", self._file, methods=get),
                Route("/api/stream", self._stream, methods=get),
                Route("/api/log", self._log, methods=get),
                Route("/api/moment", self._moment, methods=get),
                Route("/api/task/{task:path}", self._task, methods=get),
                Route("/api/report", self._report, methods=get),
                Route("/api/token", self._token, methods=post),
                Route("/api/order/{order}", self._order, methods=post),
            ]
        )

    async def _page(self, _request: Request) -> Response:
        return Response(self._shell, media_type="text/html")

    async def _file(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        if name not in self._files:
            return answer(Denial(404, "there is no such file"), 404)
        return Response(self._files[name], media_type=FILES[name])

    # -- now -------------------------------------------------------------------------------------

    async def _stream(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        kinds = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._pictures(last), 200, kinds, "text/event-stream")

    async def _pictures(self, last: str) -> AsyncGenerator[bytes]:
        live, version = self._live, 0
        live.viewers += 1
        try:
            yield b"retry: 1000\n\n"
            while True:
                with anyio.move_on_after(STILL_S) as quiet:
                    await live.newer(version)
                if quiet.cancelled_caught:
                    yield b": still here\n\n"
                    continue
                version = live.version
                picture = await live.picture()
                rows, anew = await live.rows(last, picture.as_of)
                events = msgspec.json.encode(plain(rows))
                flag = b"true" if anew else b"false"
                yield (
                    b"id: " + picture.as_of.encode() + b'\nevent: scene\ndata: {"overview":'
                    + picture.overview + b',"anew":' + flag + b',"events":' + events + b"}\n\n"
                )  # fmt: skip
                last = picture.as_of
                await anyio.sleep(FRAME_S)
        finally:
            live.viewers -= 1

    # -- the past, tasks, reports -----------------------------------------------------------------

    async def _log(self, request: Request) -> Response:
        return await self._asked(_ends)

    async def _moment(self, request: Request) -> Response:
        named, by = request.query_params.get("at", ""), request.query_params.get("step", "0")

        def asked(bus: Bus) -> Any:
            chosen = moment(named, bus.now())
            if by in ("1", "-1"):
                chosen = Moment(step(bus, chosen.until, int(by)))
            return past(bus, chosen)

        return await self._asked(asked, self._folding)

    async def _task(self, request: Request) -> Response:
        task: str = request.path_params["task"]
        named = request.query_params.get("at")

        def asked(bus: Bus) -> Any:
            return task_at(bus, task, moment(named, bus.now()) if named else None)

        return await self._asked(asked, self._folding)

    async def _report(self, request: Request) -> Response:
        given = {name: request.query_params.get(name) for name in ("date", "week", "month")}
        return await self._asked(partial(_report, given=given), self._folding)

    async def _asked(
        self, question: Callable[[Bus], Any], limit: anyio.CapacityLimiter | None = None
    ) -> Response:
        """The answer of the bus, from a thread: whatever it takes, the stream goes on."""
        try:
            view = await anyio.to_thread.run_sync(
                self._with_bus, question, limiter=limit or self._asking
            )
        except (AsbError, CommandRefused) as error:
            return refusal(error)
        return answer(view)

    def _with_bus(self, question: Callable[[Bus], Any]) -> Any:
        with self._opened() as bus:
            return plain(question(bus))

    # -- orders ----------------------------------------------------------------------------------

    async def _token(self, _request: Request) -> Response:
        return answer({"ok": True})  # the guard let it pass

    async def _order(self, request: Request) -> Response:
        try:
            body = msgspec.json.decode(await request.body(), type=dict[str, Any])
            order = order_of(request.path_params["order"], body)
        except (msgspec.MsgspecError, Refused) as error:
            return refusal(error)
        return await self._asked(order)


def order_of(name: str, body: Mapping[str, Any]) -> Callable[[Bus], orders.Reply]:
    """What a person orders, to be done on a bus. Raises Refused for what there is not."""
    if name == "submit":
        fields = {key: body[key] for key in FIELDS if body.get(key)}
        return lambda bus: orders.submit(bus, dict(fields))
    about = body.get("task") or body.get("worker")
    if not isinstance(about, str):
        raise Refused("an order names its task or worker")
    if name == "cancel":
        return lambda bus: orders.cancel(bus, about, "by hand, on the page")
    if name == "retry":
        return lambda bus: orders.retry(bus, about)
    if name in ("pause", "resume"):
        return lambda bus: orders.pause(bus, about, resume=name == "resume")
    raise Refused(f"{name[:40]!r} is no order")


def _ends(bus: Bus) -> dict[str, Any]:
    """Where the log begins and ends."""
    first, last = bus.history.first(), bus.last_id()
    return {"first": first, "last": last, "now": bus.now()}


def _report(bus: Bus, given: Mapping[str, str | None]) -> dict[str, Any]:
    state, now = bus.state(), bus.now()
    period = period_of(state, now, given["date"], given["week"], given["month"])
    cells = report_views.merged(state.days[day] for day in period.days if day in state.days)
    facts = report_facts(bus, period)
    return {
        **report_figures(state, period),
        "name": period.name,
        "standing": report_standing(state, period, now),
        "facts": facts,
        "texts": {task: first_line(text) for task, text in report_texts(bus, facts).items()},
        "savings": savings(state, cells),
        "as_of": state.meta.log_id,
    }


def answer(view: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(view), status, media_type="application/json")


def refusal(error: Exception) -> Response:
    """An error as a person reads it."""
    status = 503 if isinstance(error, RedisUnavailable) else 400
    hint = error.hint if isinstance(error, AsbError) else ""
    message = str(error).partition("\nhint: ")[0]
    return answer(plain(Denial(status, message, hint)), status)
