"""Write the sample of each event type that has none yet, from `tests.examples`."""

from __future__ import annotations

import json

from events.envelope import Event
from tests.examples import NOON, every_payload
from tests.given import wire_entry
from tests.golden.test_golden import FOLDER

AT = NOON + 9_000_000


def sample(event: Event) -> str:
    """An entry of the log as a file: its place and its fields, the data as the text it is."""
    place, fields = wire_entry(event)
    texts = [part.decode() for part in fields]
    named = dict(zip(texts[::2], texts[1::2], strict=True))
    return json.dumps({"entry": place.decode(), **named}, indent=2)


def write_missing() -> None:
    for kind, payload in every_payload().items():
        path = FOLDER / f"{kind}.v1.json"
        if not path.exists():
            place = f"{AT // 1000}-0"
            event = Event(payload, id=place, source="dispatcher", at=AT, log_id=place)
            path.write_text(sample(event) + "\n", encoding="utf-8")
            print(f"wrote {path.name}")  # noqa: T201


if __name__ == "__main__":
    write_missing()
