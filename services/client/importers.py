"""Tasks of other systems: JSON lines, Markdown to-do lists, Redis lists and streams."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.client.markdown import open_items
from services.client.submissions import BadLine, Checker, Submission
from services.intake import schema
from services.runtime.errors import CommandRefused, Refused
from services.store.client import SyncClient
from services.store.scripts import LUA

READ_COUNT = 500


GROUP = "asb"


TEXTS = ("content", "prompt", "description", "title", "message", "body")


PAYLOADS = ("data", "payload", "task", "job", "message", "body")


_UNFIT = re.compile(r"[\s\x00-\x20\x7f*?\[\]{}]")  # what may not stand in an id


From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="Another system's tasks: jsonl:FILE, md:FILE (a to-do list), list:KEY or stream:KEY "
        "(of Redis; of another one: list:redis://HOST/0#KEY).",
    ),
]


Take = Annotated[
    bool, typer.Option("--take", help="With --from list: or stream: they leave it once taken in.")
]


class ForeignItem(msgspec.Struct):
    """One task of a source. ``key`` is its idempotency key; ``place`` what acknowledges it."""

    where: str
    fields: dict[str, Any]
    key: str = ""
    place: str = ""


class Source:
    """Items to submit, and what to do when the bus has them."""

    def __init__(
        self,
        items: Iterator[ForeignItem | BadLine],
        acknowledge: Callable[[str], Any] | None = None,
        close: Callable[[], Any] | None = None,
    ) -> None:
        self._items, self._acknowledge, self._close = items, acknowledge, close
        self._places: list[str] = []

    def checked(self, checker: Checker) -> Iterator[Submission | BadLine]:
        """Every item as a submission, or what is wrong with it."""
        seen: dict[str, dict[str, Any]] = {}
        for item in self._items:
            if isinstance(item, BadLine):
                yield item
                continue
            if item.key and item.fields == seen.get(item.key):
                self._places.append(item.place)  # the same again: the first one stands for it
                continue
            seen[item.key] = dict(item.fields)
            checked_item = checker.item(item.where, item.fields, item.key)
            if isinstance(checked_item, Submission) and item.place:
                self._places.append(item.place)
            yield checked_item

    def done(self) -> None:
        """The bus has every submission: they may leave where they came from."""
        if self._acknowledge is not None:
            for place in self._places:
                self._acknowledge(place)
        if self._close is not None:
            self._close()


def opened_source(text: str | None, client: SyncClient, take: bool = False) -> Source:
    """What ``--from`` names: jsonl:FILE, md:FILE, list:KEY or stream:KEY. A key may stand on
    another Redis: list:redis://HOST:PORT/0#KEY. Raises Refused and BadParameter."""
    if text is None:
        if take:
            raise typer.BadParameter("--take goes with --from list:KEY or stream:KEY")
        return Source(iter(()))
    kind, _, rest = text.partition(":")
    if kind not in ("jsonl", "md", "list", "stream") or not rest:
        raise typer.BadParameter(
            f"--from {text!r} is none of jsonl:FILE, md:FILE, list:KEY, stream:KEY"
        )
    if kind in ("jsonl", "md"):
        if take:
            raise typer.BadParameter("--take goes with list: and stream:; files stay as they are")
        return Source(_json_lines(rest) if kind == "jsonl" else _markdown(rest))
    key, close = rest, None
    if re.match(r"(redis|rediss|unix)://", rest):
        url, _, key = rest.partition("#")
        if not key:
            raise typer.BadParameter(f"--from {text!r} names no key: …{url}#KEY")
        client = SyncClient(url)
        close = client.close
    return (_list if kind == "list" else _stream)(client, key, take, close)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refused(f"cannot read {file}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{file} is not UTF-8: {error}", hint="nothing went in") from None


def _json_lines(file: str) -> Iterator[ForeignItem | BadLine]:
    """A JSON object a line; ``id`` is its idempotency key."""
    for number, line in enumerate(_read(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        fields = _object(line.encode())
        if fields is None:
            yield BadLine(where, "not a JSON object")
        else:
            key = fields.pop("id", None)
            yield ForeignItem(where, shaped(fields), "" if key is None else fitting(str(key)))


def _markdown(file: str) -> Iterator[ForeignItem | BadLine]:
    """The open items. The key is the text itself: what was submitted before is not again."""
    seen: Counter[str] = Counter()
    for item in open_items(_read(file)):
        text = item.text
        seen[text] += 1
        key = f"md-{_digest(text, str(seen[text]))}"
        yield ForeignItem(f"line {item.line}", {"text": text}, key)


def _list(client: SyncClient, key: str, take: bool, close: Callable[[], Any] | None) -> Source:
    if not take:
        return Source(_peeked(client, key), None, close)
    taking = taking_key(key)
    script = (LUA / "take.lua").read_bytes()

    def items() -> Iterator[ForeignItem | BadLine]:
        while _asked(client, key, "EVAL", script, 2, key, taking, READ_COUNT):
            pass
        for place, fields in _entries(client, taking):
            element = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"element", b"")
            item = _element(key, f"element {place}", element, f"{key}.{place}")
            if isinstance(item, ForeignItem):
                item.place = place
            yield item

    return Source(items(), lambda place: client.call("XDEL", taking, place), close)


def taking_key(key: str) -> str:
    """Where elements of the list ``key`` stand from when they are taken until the bus has them:
    in the same cluster slot."""
    return f"{key}:asb-taking" if re.search(r"\{[^}]+\}", key) else f"{{{key}}}:asb-taking"


def _peeked(client: SyncClient, key: str) -> Iterator[ForeignItem | BadLine]:
    """The elements of a list, left where they are. Equal ones are told apart by counting."""
    seen: Counter[bytes] = Counter()
    start = 0
    while batch := _asked(client, key, "LRANGE", key, start, start + READ_COUNT - 1):
        for number, element in enumerate(batch, start):
            seen[element] += 1
            name = _digest(element.decode(errors="replace"), str(seen[element]))
            yield _element(key, f"element {number}", element, f"{key}.{name}")
        start += len(batch)


def _element(source_key: str, where: str, element: bytes, key: str) -> ForeignItem | BadLine:
    """JSON where it is an object, else the text of the task. Its own ``id`` goes before ``key``."""
    fields = _object(element)
    if fields is None:
        try:
            fields = {"text": element.decode()}
        except UnicodeDecodeError as error:
            return BadLine(where, f"not UTF-8: {error}")
    own = fields.pop("id", None)
    name = f"{source_key}.{own}" if isinstance(own, str | int) and own != "" else key
    return ForeignItem(where, shaped(fields), fitting(name))


def _stream(client: SyncClient, key: str, take: bool, close: Callable[[], Any] | None) -> Source:
    def items() -> Iterator[ForeignItem | BadLine]:
        for place, flat in _group(client, key) if take else _entries(client, key):
            where = f"entry {place}"
            try:
                fields = _fields(flat)
            except schema.Rejected as error:
                yield BadLine(where, str(error))
            else:
                yield ForeignItem(where, shaped(fields), fitting(f"{key}.{place}"), place)

    return Source(
        items(), (lambda place: client.call("XACK", key, GROUP, place)) if take else None, close
    )


def _entries(client: SyncClient, key: str) -> Iterator[tuple[str, list[bytes]]]:
    start = "-"
    while entries := _asked(client, key, "XRANGE", key, start, "+", "COUNT", READ_COUNT):
        for entry_id, fields in entries:
            yield entry_id.decode(), fields
        start = f"({entries[-1][0].decode()}"


def _group(client: SyncClient, key: str) -> Iterator[tuple[str, list[bytes]]]:
    """First what an earlier run was given and did not acknowledge, then what is new."""
    with contextlib.suppress(CommandRefused):  # the group is there already
        client.call("XGROUP", "CREATE", key, GROUP, "0")
    after = "0"
    for start in (after, ">"):
        after = start
        while True:
            reply = _asked(
                client, key, "XREADGROUP", "GROUP", GROUP, GROUP, "COUNT", READ_COUNT,
                "STREAMS", key, after,
            )  # fmt: skip
            entries: list[Any] = reply[0][1] if reply else []
            for entry_id, fields in entries:
                if fields:  # an entry that was deleted meanwhile has none
                    yield entry_id.decode(), fields
            if not entries:
                break
            after = entries[-1][0].decode() if start != ">" else ">"


def _asked(client: SyncClient, key: str, *command: str | bytes | int) -> Any:
    try:
        return client.call(*command)
    except CommandRefused as error:
        raise Refused(f"{key}: {error}", hint="list: reads lists, stream: reads streams") from error


def _fields(flat: list[bytes]) -> dict[str, Any]:
    """The fields of an entry, or the JSON object in one of them. Raises Bad."""
    names = dict(zip(flat[::2], flat[1::2], strict=False))
    for name in PAYLOADS:
        nested = _object(names.get(name.encode(), b""))
        if nested is not None:
            nested.pop("id", None)
            return nested
    names[b"type"] = b"task.submitted"
    names.pop(b"id", None)
    _, _, raw = schema.read([part for pair in names.items() for part in pair])
    return _object(raw) or {}


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def shaped(fields: dict[str, Any]) -> dict[str, Any]:
    """Another system's fields as ours: what it calls the text becomes ``text``."""
    given = {name: value for name, value in fields.items() if value is not None}
    if "text" not in given:
        for name in TEXTS:
            if isinstance(given.get(name), str):
                given["text"] = given.pop(name)
                break
        else:
            # "task" is our name for an id, and what many others call the text.
            if isinstance(given.get("task"), str):
                given["text"] = given.pop("task")
    return given


def fitting(key: str) -> str:
    """``key`` as an id of ours: what may not stand in one is replaced, and what is too long cut,
    both with a digest so that different keys stay different."""
    fit = _UNFIT.sub("_", key)
    return fit if fit == key and len(key) <= 200 else f"{fit[:180]}-{_digest(key)}"


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=8).hexdigest()
