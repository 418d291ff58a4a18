"""What the delegator is taught, as it is sent. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from events.envelope import Event
from events.routing import DelegatorLearnt
from services.intake import schema
from services.intake.case import Case
from services.intake.schema import Rejected

FEATURES_MAX = 20_000
EXAMPLES_MAX = 10_000  # on the whole bus
NAME_MAX = 500  # characters of a feature
_POINTS = re.compile(r"(?:[a-k][+-]\d{1,4}){1,11}")
_learnt = msgspec.json.Decoder(DelegatorLearnt)


def learnt(case: Case) -> Iterable[Event]:
    """The overlay as it shall be from here on, checked. It is taken like policy: from the shared
    stream only."""
    if case.intake_name:
        raise Rejected("the delegator is taught through the shared intake only")
    command: DelegatorLearnt = schema.decode(case.raw, _learnt)
    before = case.state.meta.overlay.place
    if command.after != before:
        raise Rejected(
            f"it was learnt on top of {command.after or 'nothing'}, and {before or 'nothing'} is in"
            " force: somebody else taught the delegator meanwhile; do it again"
        )
    if len(command.overlay) > FEATURES_MAX:
        raise Rejected(f"{len(command.overlay):,} features; at most {FEATURES_MAX:,}")
    for name, points in command.overlay.items():
        if not name or len(name) > NAME_MAX or not _POINTS.fullmatch(points):
            raise Rejected(f"feature {name[:80]!r}: {points[:80]!r} are not points by kind")
    _check_examples(case, command)
    yield case.event(msgspec.structs.replace(command, reason=command.reason[:500]))


def _check_examples(case: Case, d: DelegatorLearnt) -> None:
    if len(case.state.taught) + len(d.examples) > EXAMPLES_MAX:
        raise Rejected(f"more than {EXAMPLES_MAX:,} examples")
    for example in d.examples:
        schema.check_kind(example.kind)
        if bool(example.text.strip()) == bool(example.task):
            raise Rejected("an example has either a text or a task")
        if len(example.text.encode()) > case.defaults.text_max_bytes:
            raise Rejected("the text of an example is too long")
