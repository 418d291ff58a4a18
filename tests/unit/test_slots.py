"""On a Redis Cluster a script may touch keys of one slot only; those of a turn lie with the log."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import pytest
from redis.crc import key_slot

from events.keys import Keys, rewrite_copy, rewrite_run, rewritten
from services.client.importers import taking_key
from services.runtime.errors import RedisUnavailable
from services.store.replies import key_of
from services.store.routes import REDIRECTS, Routes
from services.store.scripts import LUA

KEYS = Keys("some-bus")
LOG = KEYS.log
# What each script is called with, once for each stream or key that it may be about.
CALLS: dict[str, list[list[str]]] = {
    "alert": [[KEYS.alert_mark]],
    # Inboxes come last, and only where the server has no slots.
    "append": [[LOG, KEYS.task_index("t:1"), KEYS.duplicates(7), KEYS.forgotten]],
    "carry": [[LOG, KEYS.carried]],
    "deadletter": [[KEYS.deadletter, KEYS.deadletter_marks, KEYS.deadletter_dropped]],
    "expel": [[KEYS.main_intake], [KEYS.intake("x")]],
    "hook": [[KEYS.hook("x")]],
    "inbox": [[KEYS.inbox("x")]],
    "rewrite": [
        [s, rewrite_copy(s), rewrite_run(s), rewritten(s)]
        for s in (LOG, KEYS.carried, KEYS.intake("x"), KEYS.deadletter, KEYS.inbox("x"))
    ],
    "rewrite_begin": [
        [s, rewrite_copy(s), rewrite_run(s)] for s in (LOG, KEYS.carried, KEYS.inbox("x"))
    ],
    "swap": [[KEYS.archive_mark], [KEYS.progress("a", "t")]],
    "sweep": [[KEYS.task_index("a"), KEYS.task_index("b")]],
    "take": [["jobs", taking_key("jobs")], ["{x}:jobs", taking_key("{x}:jobs")]],
    "view": [[KEYS.throttle], [KEYS.token_usage], [KEYS.report("2026-01-01")]],
}


def slots(keys: list[str]) -> set[int]:
    return {key_slot(key.encode()) for key in keys}


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("*.lua")))
def test_what_a_script_touches_is_in_one_slot(name: str) -> None:
    for keys in CALLS[name]:
        assert len(slots(keys)) == 1, keys
    about_the_log = [keys for keys in CALLS[name] if any(f"{{{LOG}}}" in key for key in keys)]
    assert all(slots(keys) == slots([LOG]) for keys in about_the_log)
    text = (LUA / f"{name}.lua").read_text()
    touched = re.findall(r"redis\.p?call\(\s*'(\w+)'(?:,\s*'(\w+)')?,\s*([^,)]+)", text)
    elsewhere = {
        (command, key)
        for command, _, key in touched
        if not key.startswith(("KEYS[", "key")) and command not in ("TIME", "PUBLISH")
    }
    assert elsewhere == set()


def answered(exchange: Generator[Any, Any, list[Any]], *answers: Any) -> tuple[list[Any], Any]:
    """What an exchange sent, and what it ended with, where nodes answer so."""
    sent = [next(exchange)]
    for answer in answers:
        try:
            sent.append(exchange.send(answer))
        except StopIteration as ended:
            return sent, ended.value
    return sent, None


@pytest.fixture
def routes() -> Routes:
    made = Routes("redis+cluster://x", LOG)
    made.learnt({slot: "a:1" if slot < 8_192 else "b:2" for slot in range(16_384)})
    return made


KEY = "{a}:x"  # slot 15495: b's


def test_a_moved_command_is_sent_on_once_and_noticed(routes: Routes) -> None:
    command = ("SET", KEY, 1)
    moved, ok = Exception("MOVED 15495 c:3"), [b"OK"]
    sent, replies = answered(routes.exchange([command]), {"b:2": [moved]}, {"c:3": ok})
    assert sent == [{"b:2": [command]}, {"c:3": [command]}]
    assert replies == ok
    assert (routes.changes, routes.stale) == (1, True)


def test_asking_goes_before_the_command_and_changes_nothing(routes: Routes) -> None:
    command = ("SET", KEY, 1)
    ask = Exception("ASK 15495 c:3")
    sent, replies = answered(
        routes.exchange([command, ("GET", KEY)]), {"b:2": [ask, b"1"]}, {"c:3": [b"OK", b"OK"]}
    )
    assert sent[1] == {"c:3": [("ASKING",), command]}
    assert replies == [b"OK", b"1"]
    assert routes.changes == 0


@pytest.mark.parametrize(
    "answer",
    [
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "UNBLOCKED force unblock from blocking operation",
        "MOVED",
    ],
)
def test_what_a_node_does_not_take_now_is_for_its_asker_to_decide_again(
    routes: Routes, answer: str
) -> None:
    exchange = routes.exchange([("SET", KEY, 1), ("SET", "b", 1)])
    sends = next(exchange)
    assert len(sends) == 2
    with pytest.raises(RedisUnavailable, match=answer.split()[0]):
        exchange.send({node: [Exception(answer) if node == "b:2" else b"OK"] for node in sends})
    assert routes.stale


def test_an_error_about_the_command_itself_is_its_reply(routes: Routes) -> None:
    wrong = Exception("WRONGTYPE Operation against a key holding the wrong kind of value")
    _, replies = answered(routes.exchange([("INCR", KEY)]), {"b:2": [wrong]})
    assert replies == [wrong]
    assert not routes.stale


def test_nodes_that_send_a_command_round_and_round_are_left(routes: Routes) -> None:
    exchange = routes.exchange([("GET", KEY)])
    sends = next(exchange)
    for _ in range(REDIRECTS - 1):
        (node,) = sends
        sends = exchange.send({node: [Exception("MOVED 15495 b:2")]})
    with pytest.raises(RedisUnavailable, match="from one to another"):
        exchange.send({"b:2": [Exception("MOVED 15495 a:1")]})


def test_a_walk_over_keys_goes_through_all_nodes_and_ends_where_they_change(
    routes: Routes,
) -> None:
    def step(cursor: bytes, answer: bytes) -> tuple[str, bytes, bytes]:
        exchange = routes.started([("SCAN", cursor, "MATCH", "*")])
        ((node, commands),) = next(exchange).items()
        with pytest.raises(StopIteration) as ended:
            exchange.send({node: [[answer, [b"k"]]]})
        return node, str(commands[0][1]).encode(), ended.value.value[0][0]

    node, asked, cursor = step(b"0", b"17")
    assert (node, asked) == ("a:1", b"0")
    node, asked, cursor = step(cursor, b"0")
    assert (node, asked) == ("a:1", b"17")
    node, asked, last = step(cursor, b"0")
    assert (node, asked, last) == ("b:2", b"0", b"0")
    routes.doubted()
    with pytest.raises(RedisUnavailable, match="look again"):
        next(routes.started([("SCAN", cursor)]))


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("XREAD", "COUNT", 1, "STREAMS", "s", "0-0"), "s"),
        (("XINFO", "STREAM", "s"), "s"),
        (("XGROUP", "CREATE", "s", "g", "0"), "s"),
        (("MEMORY", "USAGE", "s"), "s"),
        (("GET", "s"), "s"),
    ],
)
def test_the_key_of_a_command_is_known(command: tuple[str, ...], key: str) -> None:
    assert key_of(command) == key
