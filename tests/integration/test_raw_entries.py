"""The log is read in batches: small ones where the server is near, larger ones where it is far."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from events.keys import Keys
from services.store.client import SyncClient
from services.store.raw_entries import COUNT, entries
from tests.poor_servers import PoorServer

pytestmark = pytest.mark.one_server
NUMBER = 20 * COUNT + 7
FAR_S = 0.02


@pytest.mark.parametrize("number", [0, 1, COUNT - 1, COUNT, COUNT + 1, NUMBER])
def test_who_reads_the_log_gets_every_entry_once_and_in_order(
    redis_url: str, namespace: str, number: int
) -> None:
    with contextlib.closing(SyncClient(redis_url)) as client:
        keys = Keys(namespace)
        ids = _write(client, keys, number)
        assert [i for batch in _read(client, keys) for i in batch] == ids


def test_a_log_that_is_far_away_is_read_in_larger_batches(tmp_path: Path) -> None:
    poor = PoorServer(tmp_path, far_s=FAR_S)
    try:
        with contextlib.closing(SyncClient(poor.url)) as client:
            keys = Keys("far")
            ids = _write(client, keys, NUMBER)
            batches = _read(client, keys)
        assert [i for batch in batches for i in batch] == ids
        assert len(batches[0]) == COUNT
        assert len(batches) < NUMBER // COUNT // 2
    finally:
        poor.stop()


def _write(client: SyncClient, keys: Keys, number: int) -> list[bytes]:
    return client.pipeline(("XADD", keys.log, "*", "n", n) for n in range(number))


def _read(client: SyncClient, keys: Keys) -> list[list[bytes]]:
    return [[entry[0] for entry in batch] for batch in entries(client, keys)]
