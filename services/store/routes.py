"""Which node of a Redis Cluster is asked what, and what becomes of a command that it does not take.

A node that answers MOVED or ASK has done nothing: the command goes to the node it names. Whatever
else it may answer while slots or roles move (TRYAGAIN, CLUSTERDOWN, READONLY, LOADING …) is
RedisUnavailable, as a lost connection is: whoever asked decides again. Nothing is sent twice.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from redis.crc import key_slot

from services.runtime.clock import elapsed
from services.runtime.errors import RedisUnavailable
from services.store.replies import Command, classified, is_not_here, key_of

REDIRECTS = 8  # how often a command is sent on
LOOK_S = 2.0  # how often it is looked whether others serve the slots now
RELOOK_S = 0.2  # the same where somebody was lost: the nodes need a while to agree
# What is asked of a node, not of a key. Scripts name theirs.
_KEYLESS = frozenset(
    (
        *("ACL", "BGREWRITEAOF", "CLIENT", "CLUSTER", "CONFIG", "DBSIZE", "ECHO", "HELLO", "INFO"),
        *("PING", "PUBLISH", "ROLE", "SCRIPT", "TIME", "WAIT", "WAITAOF"),
    )
)
Sends = dict[str, list[Command]]
Exchange = Generator[Sends, dict[str, list[Any]], list[Any]]


class Routes:
    """Who serves which slot, and so who is asked what."""

    def __init__(self, shown: str, home: str) -> None:
        self._shown = shown
        self._home_slot = key_slot(home.encode())
        self._by_slot: Mapping[int, str] = {}
        self.primaries: list[str] = []
        self.changes = 0  # how often somebody was lost, or another serves what he served
        self._looked_at = 0.0
        self._said: Any = None
        self.stale = True

    # -- what is known ---------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether it is time to look who serves what."""
        since = elapsed() - self._looked_at
        return not self.primaries or since >= (RELOOK_S if self.stale else LOOK_S)

    def learnt(self, by_slot: Mapping[int, str]) -> None:
        """The nodes say that this is who serves what."""
        self._looked_at, self.stale = elapsed(), False
        if self._by_slot and by_slot != self._by_slot:
            self.changes += 1
        self._by_slot, self.primaries = by_slot, sorted(set(by_slot.values()))

    def is_known(self, said: Any) -> bool:
        """Whether a node says of the slots what it said when it was looked last."""
        known = said == self._said
        self._said = said
        if known:
            self._looked_at = elapsed()
        return known

    def doubted(self) -> None:
        """Somebody was lost, or said that another serves a slot."""
        self.stale = True
        self.changes += 1

    @property
    def home(self) -> str:
        """The node that is asked what has no key."""
        return self.of_slot(self._home_slot)

    def of_slot(self, slot: int) -> str:
        """The node that serves a slot. Raises RedisUnavailable where none does."""
        try:
            return self._by_slot[slot]
        except KeyError:
            raise RedisUnavailable(
                f"no node of the Cluster at {self._shown} serves slot {slot}",
                hint="redis-cli --cluster fix HOST:PORT gives it to one",
            ) from None

    def of_key(self, key: str | bytes) -> str:
        """The node that serves a key."""
        return self.of_slot(key_slot(key.encode() if isinstance(key, str) else key))

    def together(self, keys: Sequence[str]) -> list[list[str]]:
        """Keys of one slot each."""
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(key_slot(key.encode()), []).append(key)
        return list(slots.values())

    def node_of(self, command: Command) -> str:
        """The node that a command goes to."""
        name = command[0]
        if name in _KEYLESS:
            return self.home
        if name in ("EVALSHA", "EVAL"):
            return self.of_key(_key(command[3])) if command[2] else self.home
        return self.of_key(_key(key_of(command)))

    # -- what is asked of whom -------------------------------------------------------------------

    def exchange(self, commands: Sequence[Command]) -> Exchange:
        """The replies to ``commands``, errors as values. Yields what is to be sent to which node,
        and is sent what each replied. Those for one node keep their order; so do those of one key,
        also where it moves meanwhile. Raises RedisUnavailable."""
        replies: list[Any] = [None] * len(commands)
        left = {n: (self.node_of(command), False) for n, command in enumerate(commands)}
        for _ in range(REDIRECTS):
            places: dict[str, list[int]] = {}
            sends: Sends = {}
            for n, (node, asking) in left.items():
                places.setdefault(node, []).append(n)
                sends.setdefault(node, []).extend([("ASKING",)] if asking else [])
                sends[node].append(commands[n])
            answers = yield sends
            left = {}
            for node, wanted in places.items():
                asked = zip(sends[node], answers[node], strict=True)
                kept = (reply for command, reply in asked if command != ("ASKING",))
                for n, reply in zip(wanted, kept, strict=True):
                    replies[n] = reply
                    if is_not_here(reply):
                        left[n] = self._sent_on(node, reply)
            if not left:
                return replies
        raise RedisUnavailable(
            f"the nodes of the Cluster at {self._shown} send a command from one to another",
            hint="they do not agree yet who serves what: wait a moment",
        )

    def _sent_on(self, node: str, reply: Exception) -> tuple[str, bool]:
        """Which node is to be asked instead, and whether ASKING; raises what is no redirection."""
        code, _, where = str(reply).partition(" ")
        place = where.partition(" ")[2]
        if code not in ("MOVED", "ASK") or not place:
            self.doubted()
            raise classified(self._shown, str(reply)) from reply
        if code == "MOVED":
            self.doubted()
        host, _, port = place.rpartition(":")  # no host: the one that answers
        return f"{host or node.rpartition(':')[0]}:{port}", code == "ASK"

    # -- all keys --------------------------------------------------------------------------------

    def scanned(self, command: Command) -> Exchange:
        """The reply to one SCAN. Its cursor says which node is next, so that a walk goes through
        all of them. Raises RedisUnavailable where the nodes have changed under it."""
        cursor = _key(command[1])
        begun = (self.changes, 0, 0)
        changes, node, inner = map(int, cursor.split(b".")) if b"." in cursor else begun
        if changes != self.changes:
            raise RedisUnavailable(
                f"the nodes of the Cluster at {self._shown} changed while keys were looked through",
                hint="look again",
            )
        name = self.primaries[node]
        (reply,) = (yield {name: [("SCAN", inner, *command[2:])]})[name]
        if isinstance(reply, Exception):
            return [reply]
        node += reply[0] == b"0"
        is_over = node == len(self.primaries)
        following = b"0" if is_over else b"%d.%d.%s" % (changes, node, reply[0])
        return [[following, reply[1]]]

    def started(self, commands: Sequence[Command]) -> Exchange:
        """The exchange for ``commands``."""
        if commands[0][0] == "SCAN":
            return self.scanned(commands[0])
        return self.exchange(commands)


def _key(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
