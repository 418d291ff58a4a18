"""A worker's whole life: sessions, one after the other, until it is asked to stop."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from typing import Any, NoReturn

import anyio

from events.keys import Keys
from services.runtime.ending import one_error
from services.runtime.errors import AsbError, ConfigError, RedisUnavailable
from services.store.client import Client
from services.worker import messages
from services.worker.attempt import Ending
from services.worker.lease import holder_of
from services.worker.outbox import Outbox
from services.worker.session import Session
from services.worker.task import AgentKeeper, WorkerOptions

log = logging.getLogger("asb.worker")

_RETRY_S, _RETRY_MAX_S = 0.2, 5.0
_LAST_WORDS_S = 5.0  # how long a stopping worker waits for Redis to take its reports


async def serve(
    options: WorkerOptions, keys: Keys, client: Client, *, stop: anyio.Event | None = None
) -> None:
    """Join, work, and join again whenever a session is lost, until ``stop`` is set.

    ``stop`` is the graceful end: running tasks get ``options.grace_s`` seconds. Cancelling the
    scope around this call ends them at once; both ways every process is gone when it returns.

    Raises ConfigError (options or driver), RedisUnsuitable, and AsbError when another worker of
    this name is alive, or has taken over.
    """
    try:
        options.check()
    except ValueError as error:
        raise ConfigError(f"worker {options.name}: {error}") from error
    await options.driver.prepare()
    outbox = Outbox(client, keys.intake(options.intake))
    worker = _Worker(options, keys, client, outbox, stop or anyio.Event())
    with one_error():
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.run)
            keeping = anyio.CancelScope()
            if isinstance(options.driver, AgentKeeper):
                group.start_soon(_keep, options.driver, options.name, outbox, keeping)
            try:
                await worker.run()
            finally:
                keeping.cancel()
                if not worker.has_left:
                    with anyio.move_on_after(_LAST_WORDS_S, shield=True):
                        await outbox.drained()
                if outbox.waiting:
                    log.error("Redis is away: %d reports are lost", outbox.waiting)
                outbox.close()


async def _keep(driver: AgentKeeper, worker: str, outbox: Outbox, scope: anyio.CancelScope) -> None:
    """Have the driver look after its agent, until ``scope`` is cancelled."""

    def tell(kind: str, fields: dict[str, Any], name: str = "", /) -> None:
        outbox.add(messages.of_agent(worker, kind, fields, name))
        outbox.wake()

    with scope:
        await driver.keep(tell)


class _Worker:
    def __init__(
        self,
        options: WorkerOptions,
        keys: Keys,
        client: Client,
        outbox: Outbox,
        stop: anyio.Event,
    ) -> None:
        self._options = options
        self._keys = keys
        self._client = client
        self._outbox = outbox
        self._stop = stop
        self._instance = secrets.token_hex(8)
        self._take_over = options.take_over
        self.has_left = False

    async def run(self) -> None:
        pause = _RETRY_S
        while True:
            session = await self._join()
            if session is None:
                return
            began = anyio.current_time()
            try:
                ending = await session.run(self._stop)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await self._leave(session)  # all has ended: nobody need wait for the lease
                raise
            if ending is Ending.STOPPED:
                await self._leave(session)
                return
            if ending is Ending.REFUSED and await self._holder_shows(session):
                await self._give_way(session)
            log.warning("session %s is over: %s", session.id, ending.value)
            if ending is Ending.TAKEN_OVER:
                raise AsbError(
                    f"another worker named {self._options.name} has taken over",
                    hint="names are unique: give this one another name, or stop the other",
                )
            # One session after the other that dies young must not become a storm of them.
            young = anyio.current_time() - began < self._options.lease_s
            pause = min(pause * 2, _RETRY_MAX_S) if young else _RETRY_S
            await self._pause(pause)

    async def _join(self) -> Session | None:
        """A new session; ``None`` when asked to stop before there is one."""
        pause = _RETRY_S
        while not self._stop.is_set():
            # First what is left to say of the last session.
            with anyio.move_on_after(pause) as waited:
                await self._outbox.drained()
            if not waited.cancelled_caught:
                try:
                    session = await Session.join(
                        self._options,
                        self._keys,
                        self._client,
                        self._outbox,
                        instance=self._instance,
                        take_over=self._take_over,
                    )
                except RedisUnavailable as error:
                    log.warning("cannot join: %s", str(error).partition("\n")[0])
                else:
                    self._take_over = False  # said once: later it may be this one that is replaced
                    return session
                await self._pause(pause)
            pause = min(pause * 2, _RETRY_MAX_S)
        return None

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._stop.wait()

    async def _leave(self, session: Session) -> None:
        """Say goodbye, after the last report, and take the heartbeat down if it is ours."""
        self.has_left = True
        self._outbox.add(messages.left(self._options.name, session.id))
        with anyio.move_on_after(_LAST_WORDS_S):
            await self._outbox.drained()
            await self._take_down(session)

    async def _holder_shows(self, session: Session) -> bool:
        """Whether the holder of our name gives a heartbeat. One that died right after it joined
        never did: nobody has to give way to it, and the name is asked for again."""
        await self._take_down(session)
        await self._pause(_RETRY_S)
        try:
            shown = await holder_of(self._client, self._keys.worker(self._options.name))
        except RedisUnavailable:
            return False
        return shown is not None and shown.session.encode() == session.refusal.get(b"holder")

    async def _give_way(self, session: Session) -> NoReturn:
        """The name belongs to another worker, which is alive."""
        self.has_left = True
        holder = session.refusal.get(b"holder", b"").decode("utf-8", "replace")
        since = moment_of(session.refusal.get(b"since", b""))
        raise AsbError(
            f"a worker named {self._options.name} is alive: session {holder}, since {since}",
            hint="give this one another name, or stop the other; "
            "--take-over ends the other's session and gives its tasks out again",
        )

    async def _take_down(self, session: Session) -> None:
        try:
            await session.lease.take_down()
        except RedisUnavailable:
            log.warning("Redis is away: the heartbeat ends by itself")


def moment_of(micros: bytes) -> str:
    """Microseconds since the epoch, as digits, in words; "?" for anything else."""
    try:
        moment = datetime.fromtimestamp(int(micros) // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
