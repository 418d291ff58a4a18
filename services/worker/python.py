"""A worker written in Python: a decorated async function.

::

    from services.worker import Result, Task, worker

    @worker("w1", agent="codex", capacity=100)
    async def handle(task: Task) -> str:
        return task.text.upper()

    handle.run(redis_url="redis://127.0.0.1:6379")
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Awaitable, Callable

import anyio

from events.keys import Keys
from services.runtime import loop
from services.runtime.settings import load
from services.store.client import Client
from services.store.embedded import resolve_url
from services.worker.service import serve
from services.worker.task import Result, Task, WorkerOptions

Handler = Callable[[Task], Awaitable[Result | str | None]]


class FunctionDriver:
    """Runs tasks in a Python function, in this process and on its event loop.

    A handler that computes without ``await`` stops everything else of the worker, its sign of
    life too: move such work to a thread or a process.
    """

    def __init__(self, handler: Handler) -> None:
        self.run = handler  # no layer between: this is where a no-op's time goes

    async def prepare(self) -> None: ...

    def renewed(self, until: float, end: float, /) -> None: ...


class PythonWorker:
    """What the decorator makes of a function; calling it still calls the function."""

    def __init__(self, handler: Handler, options: WorkerOptions) -> None:
        self._handler = handler
        self.options = options
        self.__doc__ = handler.__doc__

    def __call__(self, task: Task) -> Awaitable[Result | str | None]:
        return self._handler(task)

    async def serve(self, client: Client, keys: Keys, *, stop: anyio.Event | None = None) -> None:
        """Work until ``stop`` is set; see ``services.worker.serve``."""
        await serve(self.options, keys, client, stop=stop)

    def run(self, *, redis_url: str | None = None, namespace: str | None = None) -> None:
        """Work until SIGINT or SIGTERM; a second signal does not wait for running tasks.

        What is not given comes from the settings (``ASB_REDIS_URL``, ``asb.toml``, the embedded
        Redis). Raises AsbError with a hint when there is no Redis to work for.
        """
        settings = load({"redis_url": redis_url, "namespace": namespace})
        url = resolve_url(settings)
        loop.run(self._until_signalled, url, settings.namespace)

    async def _until_signalled(self, redis_url: str, namespace: str) -> None:
        client = Client(redis_url, Keys(namespace).log)
        stop = anyio.Event()

        async def watch(scope: anyio.CancelScope) -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    if stop.is_set():
                        scope.cancel()
                    stop.set()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch, group.cancel_scope)
                await self.serve(client, Keys(namespace), stop=stop)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await client.close()


def worker(  # noqa: PLR0913 - the options are its vocabulary
    name: str,
    *,
    agent: str | None = None,
    models: tuple[str, ...] = (),
    capacity: int = 1,
    account: str | None = None,
    intake: str | None = None,
    lease_s: int = 60,
    heartbeat_s: float = 15.0,
    grace_s: float = 10.0,
) -> Callable[[Handler], PythonWorker]:
    """Make an async function a worker; the parameters are those of ``WorkerOptions``.

    The function gets a ``Task`` and returns a ``Result``, a text or nothing. An exception fails
    the attempt, and another one follows unless it was a ``PermanentError``. Raises TypeError for
    a function that is not async.
    """

    def decorate(handler: Handler) -> PythonWorker:
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"{handler!r} is no async function: write `async def`")
        options = WorkerOptions(
            name=name,
            driver=FunctionDriver(handler),
            agent=agent,
            models=models,
            capacity=capacity,
            account=account,
            intake=intake,
            lease_s=lease_s,
            heartbeat_s=heartbeat_s,
            grace_s=grace_s,
        )
        return PythonWorker(handler, options)

    return decorate
