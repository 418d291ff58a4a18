"""Commands and webhooks: what an alert may set off outside. Never through a shell."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request

import anyio

logger = logging.getLogger("asb")
TRIES = 3  # a webhook is tried again, a command is not: what it did nobody knows
PAUSE_S = 1.0


async def run_command(command: list[str], message: bytes, timeout_s: int) -> bool:
    """Run ``command`` with ``message`` on its standard input. False, and a warning, where it
    cannot be run, fails, or takes longer than ``timeout_s`` (it is killed then)."""
    try:
        with anyio.fail_after(timeout_s):
            done = await anyio.run_process(command, input=message, check=False)
    except (OSError, TimeoutError) as error:
        why = f"took more than {timeout_s} s" if isinstance(error, TimeoutError) else str(error)
        logger.warning("alert hook %s: %s", command[0], why)
        return False
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        logger.warning("alert hook %s ended with %d: %s", command[0], done.returncode, said)
    return done.returncode == 0


async def post(url: str, message: bytes, timeout_s: int) -> bool:
    """POST ``message`` as JSON to ``url``. False, and a warning, when it was not taken."""
    error: Exception | None = None
    for number in range(TRIES):
        if number:
            await anyio.sleep(PAUSE_S * number)
        try:
            await anyio.to_thread.run_sync(_post, url, message, timeout_s)
        except (OSError, ValueError) as failure:  # URLError and HTTPError are OSErrors
            error = failure
            if isinstance(failure, urllib.error.HTTPError):
                failure.close()
        else:
            return True
    logger.warning("alert hook %s: %s", url.partition("?")[0], error)
    return False


def _post(url: str, message: bytes, timeout_s: int) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http URL")
    headers = {"Content-Type": "application/json", "User-Agent": "asb"}
    request = urllib.request.Request(url, message, headers, method="POST")
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        reply.read(1_000)
