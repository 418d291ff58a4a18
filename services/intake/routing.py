"""What the delegator is taught, as it is sent. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable

from events.commands.operators import TeachDelegator
from events.envelope import Event
from events.routing import DelegatorLearnt, Example
from services.intake import schema
from services.intake.case import Case, takes
from services.intake.schema import Rejected

FEATURES_MAX = 20_000
EXAMPLES_MAX = 10_000  # on the whole bus
NAME_MAX = 500  # characters of a feature
_POINTS = re.compile(r"(?:[a-k][+-]\d{1,4}){1,11}")


@takes(TeachDelegator)
def learnt(case: Case, command: TeachDelegator) -> Iterable[Event]:
    """The overlay as it shall be from here on, checked. It is taken like policy: from the shared
    stream only."""
    case.check_shared("the delegator is taught")
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
    schema.check_name(command.shipped or None, "shipped", schema.LABEL)
    for example in command.forgotten:
        schema.check_name(example, "forgotten", schema.LABEL)
    _check_examples(case, command)
    yield case.event(
        DelegatorLearnt(
            command.overlay,
            command.shipped,
            command.after,
            command.rows,
            tuple(Example(example.kind, example.task) for example in command.examples),
            tuple(example.text for example in command.examples),
            command.forgotten,
            command.reason[:500],
        )
    )


def _check_examples(case: Case, command: TeachDelegator) -> None:
    if len(case.state.taught) + len(command.examples) > EXAMPLES_MAX:
        raise Rejected(f"more than {EXAMPLES_MAX:,} examples")
    for example in command.examples:
        schema.check_kind(example.kind)
        if example.task:
            schema.check_name(example.task, "task", schema.TASK_ID)
        if bool(example.text.strip()) == bool(example.task):
            raise Rejected("an example has either a text or a task")
        if len(example.text.encode()) > case.defaults.text_max_bytes:
            raise Rejected("the text of an example is too long")
